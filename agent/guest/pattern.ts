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

// Controls, what turns text around, and halves of characters: the API server would store another character for such a half, and no status were ever equal.
const unprintable = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** Printable text of at most `most` characters: what a guest says of itself ends up before people's eyes. Pure. */
export const printable = (text: string, most: number): string =>
  text.replaceAll(unprintable, '').trim().slice(0, most).replace(/\p{Cs}$/u, '');
