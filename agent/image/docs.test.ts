import { readFile } from 'node:fs/promises';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { imageSpec } from '#crds/v1alpha1/virtualmachineimage.ts';
import { readConfig } from '../config.ts';

describe('the examples of docs/images.md', () => {
  const blocks = async (kind: string) => {
    const page = await readFile(new URL('../../docs/images.md', import.meta.url), 'utf8');
    return [...page.matchAll(new RegExp(`^\`\`\`${kind}\\n(.*?)^\`\`\``, 'gms'))].map(([, text = '']) => text);
  };

  test('are images that the API server takes', async () => {
    const manifests = (await blocks('yaml')).map((text): { kind?: unknown; spec?: unknown } => parse(text));
    expect(manifests.map(({ kind }) => kind)).toEqual(['VirtualMachineImage', 'VirtualMachineImage']);
    for (const { spec } of manifests) expect(imageSpec.safeParse(spec)).toMatchObject({ success: true });
  });

  test('are settings that an agent takes', async () => {
    const settings = await blocks('toml');
    expect(settings).toHaveLength(1);
    const asked = await readConfig({ argv: ['--config', '/x', '--control-plane-url', 'https://op'], env: {}, readText: async () => settings.join('\n') });
    expect(asked).toMatchObject({ is: 'config', config: { image_allowed_networks: ['10.20.0.0/16', 'fd00:1::/32'] } });
  });
});
