import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';

/** A Debian package as apt would download it: `sha256` names its bytes, `version` is what `apt-get download` is asked for. */
export type Deb = { package: string; version: string; sha256: string };

const kernelLine = z.string().regex(/^linux-image-[0-9][a-z0-9.+-]*$/);

/** The kernel's ABI name (such as `6.1.0-56-cloud-amd64`) from the output of `apt-cache depends META`. Fault AptLists. */
export const parseKernelAbi = (meta: string, output: string): string => {
  const names = [...output.matchAll(/^\s*\|?Depends:\s*(\S+)/gm)].map(([, name]) => kernelLine.safeParse(name));
  const found = names.find((parsed) => parsed.success)?.data;
  if (found === undefined) throw noAnswer(`which kernel ${meta} depends on`, output);
  return found.slice('linux-image-'.length);
};

const uriLine = z
  .string()
  // 'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:HASH; a colon in the version is written %3a.
  .regex(/^'[^']+' [a-z0-9][a-z0-9.+-]*_[A-Za-z0-9.+~%-]+_[a-z0-9]+\.deb [0-9]+ SHA256:[0-9a-f]{64}$/)
  .transform((line): Deb => {
    const [, file = '', , hash = ''] = line.split(' ');
    const [name = '', version = ''] = file.split('_');
    return { package: name, version: decodeURIComponent(version), sha256: hash.slice('SHA256:'.length) };
  });

/** Parses `apt-get download --print-uris PACKAGE...`; Fault AptLists unless it answers for each of `wanted`. */
export const parseUris = (output: string, wanted: readonly string[]): Deb[] => {
  const debs = output
    .split('\n')
    .map((line) => uriLine.safeParse(line.trim()))
    .flatMap((parsed) => (parsed.success ? [parsed.data] : []));
  return wanted.map((name) => {
    const deb = debs.find((candidate) => candidate.package === name);
    if (deb === undefined) throw noAnswer(`where ${name} is`, output);
    return deb;
  });
};

const noAnswer = (what: string, output: string) =>
  new Fault('AptLists', `apt does not say ${what}; run "apt-get update" (it said: ${output.trim().slice(0, 300) || 'nothing'})`);
