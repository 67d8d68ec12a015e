/** The number of the Jest worker that this process is, from 1 on: what is one for all on a machine is shared out by it. Outside of Jest it is 1. */
export const worker = Number(process.env['JEST_WORKER_ID'] ?? 1);
