import { describe, expect, test } from '@jest/globals';
import { endOf, parseEvents } from './events.ts';

const line = (event: string, reason?: string) => JSON.stringify({ timestamp: { seconds: 1, microseconds: 2 }, event, ...(reason === undefined ? {} : { data: { guest: true, reason } }) });
const end = (over: Partial<Parameters<typeof endOf>[0]> = {}) =>
  endOf({ startId: 's', rebooted: false, events: parseEvents(`${line('RESUME')}\n`), exit: '0\n', oom: false, stderr: '', ...over });

describe('the record of a run', () => {
  test('holds events among answers, and may end in the middle of a line', () => {
    expect(parseEvents(`{"QMP":{}}\r\n{"return": {}, "id": "capabilities"}\r\n${line('RESUME')}\n${line('SHUTDOWN', 'guest-shutdown')}\n{"event": "STO`))
      .toEqual([{ event: 'RESUME' }, { event: 'SHUTDOWN', reason: 'guest-shutdown' }]);
  });

  test.each([
    ['guest-shutdown', 'guest'], ['host-qmp-quit', 'stopped'], ['host-signal', 'stopped'], ['host-ui', 'stopped'], ['guest-panic', 'crashed'], ['subsystem-reset', 'crashed'],
  ])('exit code 0 after a shutdown by %s: %s', (reason, cause) => {
    expect(end({ events: parseEvents(`${line('RESUME')}\n${line('SHUTDOWN', reason)}`) })).toMatchObject({ cause, code: 0, ran: true });
  });

  test('without a word it crashed; a signal is named', () => {
    expect(end({ exit: '137\n' })).toEqual({ startId: 's', cause: 'crashed', code: 137, signal: 'SIGKILL', ran: true, stderr: '' });
    expect(end({ exit: '139\n' })).toMatchObject({ signal: 'SIGSEGV' });
    expect(end({ exit: '1\n', stderr: 'no such file' })).toMatchObject({ cause: 'crashed', code: 1, stderr: 'no such file' });
  });

  test('the guest never ran when it was never resumed', () => {
    expect(end({ events: [] })).toMatchObject({ ran: false });
  });

  test('a node that went down took it along, unless its supervisor had written already how it ended', () => {
    expect(end({ rebooted: true, exit: undefined })).toEqual({ startId: 's', cause: 'rebooted', ran: true, stderr: '' });
    expect(end({ rebooted: true, exit: '137\n' })).toMatchObject({ cause: 'crashed', signal: 'SIGKILL' });
  });

  test('an exit file that is no number is as good as none', () => {
    expect(end({ exit: '12345' })).toEqual({ startId: 's', cause: 'crashed', ran: true, stderr: '' });
  });
});
