import { createSecureContext } from 'node:tls';
import { messageOf } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';

/** A certificate and its key, PEM. */
export type Certificate = { cert: string; key: string };

/** What is needed to follow a certificate: `read` reads it anew, `use` has the server show it from now on. */
export type CertificateParts = { shown: Certificate; read: () => Promise<Certificate>; use: (certificate: Certificate) => void; everyMs: number; log: Pick<Log, 'info' | 'warn'> };

/**
 * Looks whether the certificate was renewed, and has it shown. Files are read, not watched: a mounted Secret is a chain of symlinks that is
 * swapped. Certificate and key come one after the other, and may be half written: a pair that does not fit is not used.
 */
export const followCertificate = ({ shown, read, use, everyMs, log }: CertificateParts): Disposable => {
  let current = shown;
  let trouble = '';
  let looking = false;
  const look = async (): Promise<void> => {
    try {
      const fresh = await read();
      if (fresh.cert === current.cert && fresh.key === current.key) return;
      // Throws when they do not belong together. Source: Node tls.createSecureContext, OpenSSL SSL_CTX_use_PrivateKey.
      createSecureContext(fresh);
      use(fresh);
      current = fresh;
      trouble = '';
      log.info({}, 'the renewed certificate is shown from now on');
    } catch (thrown) {
      const why = messageOf(thrown);
      if (why !== trouble) log.warn({ why }, 'the renewed certificate can not be used; the old one stays');
      trouble = why;
    }
  };
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    void look().finally(() => { looking = false; });
  }, everyMs);
  return { [Symbol.dispose]: () => clearInterval(timer) };
};
