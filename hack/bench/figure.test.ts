import { describe, expect, test } from '@jest/globals';
import { atMost, quantile } from './figure.ts';
import { withResults } from './page.ts';

describe('figures', () => {
  test.each([[0.5, 3], [0.95, 5], [1, 5], [0.2, 1]])('the quantile %s of 1 to 5 is %s', (share, value) => {
    expect(quantile([5, 3, 1, 4, 2], share)).toBe(value);
  });

  test('a goal is met or not, as it was measured and not as it was rounded', () => {
    expect(atMost('start', 'x', 1.1004, '', 1.1)).toEqual({ bench: 'start', figure: 'x', value: 1.1, unit: '', goal: '<= 1.1', met: false });
  });

  test('the page keeps its text and the results of other benches', () => {
    const figure = (bench: string, value: number) => atMost(bench, 'p50', value, 'ms', 60);
    const first = withResults('# Performance\n\nWords.\n', [figure('start', 40), figure('burst', 1)], 'here, 2030');
    const second = withResults(first, [figure('start', 70)], 'there, 2031');
    expect(second).toContain('# Performance\n\nWords.\n');
    expect(second).toContain('| start | p50 | 70 ms | <= 60 | no | there, 2031 |');
    expect(second).toContain('| burst | p50 | 1 ms | <= 60 | yes | here, 2030 |');
    expect(second).not.toContain('40 ms');
  });
});
