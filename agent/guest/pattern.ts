/**
 * Finds whether a line holds a text in which `*` stands for any characters. Linear in the line, whatever the text is: a guest writes the one, a
 * user the other. Pure.
 */
export const lineFinder = (pattern: string): ((line: string) => boolean) => {
  const pieces = pattern.split('*').filter((piece) => piece !== '');
  return (line) => {
    let from = 0;
    for (const piece of pieces) {
      const at = line.indexOf(piece, from);
      if (at < 0) return false;
      from = at + piece.length;
    }
    return true;
  };
};

/** Printable text of at most `most` characters: what a guest says of itself ends up before people's eyes. Pure. */
export const printable = (text: string, most: number): string =>
  text.replaceAll(/[^\x20-\x7e\u00a0-\u{10ffff}]/gu, '').trim().slice(0, most);
