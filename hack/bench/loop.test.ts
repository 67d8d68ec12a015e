import { expect, test } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { loopScript, quoted } from './loop.ts';

test.each(['plain', "it's", 'a $b `c` "d" \\e', 'two\nlines', ''])('%j stands for itself in a shell', (text) => {
  expect(execFileSync('/bin/sh', ['-c', `printf %s ${quoted(text)}`]).toString()).toBe(text);
});

test('every launcher is started before the first guest runs', () => {
  const script = loopScript([{ argv: ['/bin/sh', '-c', 'one'], run: '/a' }, { argv: ['/bin/sh', '-c', 'two'], run: '/b' }]);
  expect(script.split('\n').slice(0, 3)).toEqual(["'/bin/sh' '-c' 'one' </dev/null >/dev/null 2>>'/a/stderr' &", "'/bin/sh' '-c' 'two' </dev/null >/dev/null 2>>'/b/stderr' &", "set -- '/a' '/b'"]);
});
