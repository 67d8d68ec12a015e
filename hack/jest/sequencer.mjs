// Jest sequencer: the suites that take longest begin first, so that none of them is alone at the end of a run.
import TestSequencer from '@jest/test-sequencer';
import { relative, sep } from 'node:path';
import longest from './longest.json' with { type: 'json' };

export default class LongestFirst extends TestSequencer {
  sort(tests) {
    const rank = (test) => {
      const at = longest.indexOf(relative(test.context.config.rootDir, test.path).split(sep).join('/'));
      return at === -1 ? longest.length : at;
    };
    return super.sort([...tests]).toSorted((a, b) => rank(a) - rank(b));
  }
}
