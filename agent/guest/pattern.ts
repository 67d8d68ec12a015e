/** Whether a line holds a text in which `*` stands for any characters. Linear in the line: a guest writes it, a user the pattern. Pure. */
export const lineHolds = (line: string, pattern: string): boolean => {
  let from = 0;
  for (const piece of pattern.split('*')) {
    const at = line.indexOf(piece, from);
    if (at < 0) return false;
    from = at + piece.length;
  }
  return true;
};

/** Printable text of at most `most` characters: what a guest says of itself ends up before people's eyes. Pure. */
export const printable = (text: string, most: number): string =>
  text.replaceAll(/[^\x20-\x7e\u00a0-\u{10ffff}]/gu, '').trim().slice(0, most);
