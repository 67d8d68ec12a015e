/** A time as Leases and Events carry it: RFC 3339 with microseconds. Source: apimachinery meta/v1 MicroTime. */
export const microTime = (time: Date): string => time.toISOString().replace('Z', '000Z');
