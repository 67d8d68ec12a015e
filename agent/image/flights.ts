import { orAborted } from '#crds/kit/aborted.ts';

/** Hears how far something is, in percent. */
export type Hear = (percent: number) => void;

/**
 * Lets those who want the same thing at the same time share one effort. Who comes first makes it, and gets what comes of it;
 * who comes meanwhile hears its progress, waits for its end, however that is, and gets undefined: then he looks for himself.
 */
export const makeFlights = () => {
  const flights = new Map<string, { end: Promise<unknown>; heard: Set<Hear> }>();
  const lead = async <T>(key: string, hear: Hear, act: (tell: Hear) => Promise<T>): Promise<T> => {
    const heard = new Set([hear]);
    const landed = act((percent) => heard.forEach((each) => each(percent)));
    flights.set(key, { end: landed.catch(() => undefined), heard });
    try {
      return await landed;
    } finally {
      flights.delete(key);
    }
  };
  return async <T>(key: string, hear: Hear, signal: AbortSignal, act: (tell: Hear) => Promise<T>): Promise<T | undefined> => {
    // Nothing is awaited between this look and the start: else two callers that waited for a third would both begin.
    const flight = flights.get(key);
    if (!flight) return lead(key, hear, act);
    flight.heard.add(hear);
    try {
      await orAborted(flight.end, signal);
      return undefined;
    } finally {
      flight.heard.delete(hear);
    }
  };
};
