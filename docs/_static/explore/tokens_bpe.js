// Byte-level byte-pair encoding, as of the package `tokenizers`.

const WORDS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
const VISIBLE = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** The character that stands for each byte: itself if it is visible, else one from U+0100. */
function byteCharacters() {
  const visible = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let hidden = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(visible(byte) ? byte : 256 + hidden++));
}

export class Tokenizer {
  /** `vocab`: number by token; `merges`: pairs, the most frequent first; both as in tokenizer.json; `end`: no text. */
  constructor({ vocab, merges }, end) {
    Object.assign(this, { vocab, end });
    this.tokens = [];
    for (const [token, number] of Object.entries(vocab)) this.tokens[number] = token;
    this.ranks = new Map(merges.map((pair, rank) => [pair.join(" "), rank]));
    this.characters = byteCharacters();
    this.bytes = new Map(this.characters.map((character, byte) => [character, byte]));
  }

  encode(text) {
    const valid = text.replace(/\p{Surrogate}/gu, "?");
    return (valid.match(WORDS) ?? []).flatMap((word) => this.merged(word).map((part) => this.vocab[part]));
  }

  /** The parts of a word, after all merges. */
  merged(word) {
    const parts = Array.from(new TextEncoder().encode(word), (byte) => this.characters[byte]);
    while (parts.length > 1) {
      let best = Infinity, place = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < best) [best, place] = [rank, i];
      }
      if (place < 0) break;
      parts.splice(place, 2, parts[place] + parts[place + 1]);
    }
    return parts;
  }

  decode(numbers) {
    const characters = numbers.flatMap((number) => (number === this.end ? [] : [...this.tokens[number]]));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(characters, (one) => this.bytes.get(one)));
  }

  /** A token with visible spaces and line breaks. */
  label(number) {
    if (number === this.end) return "(end)";
    const text = this.decode([number]).replace(/[ \n\t\r]/g, (character) => VISIBLE[character]);
    return text.replace(/␣{3,}/g, (spaces) => `␣×${spaces.length}`);
  }
}
