//! How many bits a compressed text has.
//!
//! Of two texts of as many bytes one may end some bits earlier. What is tried to shorten a text saves a
//! few bits at a time, so they count. A text's last byte does not say where it ends: that takes
//! reading it as RFC 1951 describes it.

/// The order in which the lengths of the codes for lengths are given.
const LENGTH_ORDER: [usize; 19] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const CODE_BITS_MAX: usize = 15;
const END_OF_BLOCK: usize = 256;
/// How many bits follow the codes of lengths and of distances.
const LENGTH_BITS: [usize; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BITS: [usize; 30] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13,
    13,
];

/// The length in bits of a text in the format deflate; nothing where it is none.
pub(crate) fn bit_count(text: &[u8]) -> Option<usize> {
    let mut reader = BitReader { text, place: 0 };
    loop {
        let is_last = reader.bits(1)? == 1;
        match reader.bits(2)? {
            0 => {
                reader.place = reader.place.next_multiple_of(8);
                let length = reader.bits(16)?;
                reader.place += 16 + 8 * length;
            }
            1 => {
                let mut lengths = [8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                reader.skip_block(&Codes::of(&lengths), &Codes::of(&[5; 30]))?;
            }
            2 => {
                let literal_count = 257 + reader.bits(5)?;
                let distance_count = 1 + reader.bits(5)?;
                let mut lengths = [0; LENGTH_ORDER.len()];
                for place in 0..4 + reader.bits(4)? {
                    lengths[*LENGTH_ORDER.get(place)?] = reader.bits(3)? as u8;
                }
                let lengths =
                    reader.lengths(&Codes::of(&lengths), literal_count + distance_count)?;
                let (literals, distances) = lengths.split_at_checked(literal_count)?;
                reader.skip_block(&Codes::of(literals), &Codes::of(distances))?;
            }
            _ => return None,
        }
        if is_last {
            return Some(reader.place);
        }
    }
}

/// A code of prefixes: shorter ones are less, and those of a length follow each other.
struct Codes {
    /// How many there are of each length.
    counts: [usize; CODE_BITS_MAX + 1],
    symbols: Vec<usize>,
}

impl Codes {
    fn of(lengths: &[u8]) -> Codes {
        let mut counts = [0; CODE_BITS_MAX + 1];
        let mut symbols = Vec::new();
        for (length, count) in counts.iter_mut().enumerate().skip(1) {
            let of_length =
                lengths.iter().enumerate().filter(|(_, one)| usize::from(**one) == length);
            let before = symbols.len();
            symbols.extend(of_length.map(|(symbol, _)| symbol));
            *count = symbols.len() - before;
        }
        Codes { counts, symbols }
    }
}

struct BitReader<'t> {
    text: &'t [u8],
    /// In bits.
    place: usize,
}

impl BitReader<'_> {
    fn bits(&mut self, count: usize) -> Option<usize> {
        let mut bits = 0;
        for bit in 0..count {
            let byte = usize::from(*self.text.get(self.place / 8)?);
            bits |= ((byte >> (self.place % 8)) & 1) << bit;
            self.place += 1;
        }
        Some(bits)
    }

    fn symbol(&mut self, codes: &Codes) -> Option<usize> {
        let (mut code, mut first, mut place) = (0, 0, 0);
        for count in &codes.counts[1..] {
            code |= self.bits(1)?;
            if code < first + count {
                return codes.symbols.get(place + code.checked_sub(first)?).copied();
            }
            place += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }

    /// Reads so many lengths of codes.
    fn lengths(&mut self, codes: &Codes, count: usize) -> Option<Vec<u8>> {
        let mut lengths = Vec::new();
        while lengths.len() < count {
            let (length, repeats) = match self.symbol(codes)? {
                16 => (*lengths.last()?, 3 + self.bits(2)?),
                17 => (0, 3 + self.bits(3)?),
                18 => (0, 11 + self.bits(7)?),
                length => (length as u8, 1),
            };
            lengths.resize(lengths.len() + repeats, length);
        }
        Some(lengths)
    }

    fn skip_block(&mut self, literals: &Codes, distances: &Codes) -> Option<()> {
        loop {
            let symbol = self.symbol(literals)?;
            if symbol == END_OF_BLOCK {
                return Some(());
            }
            if let Some(length) = symbol.checked_sub(END_OF_BLOCK + 1) {
                self.place += LENGTH_BITS.get(length)?;
                let distance = self.symbol(distances)?;
                self.place += DISTANCE_BITS.get(distance)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    fn compressed(text: &[u8], level: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * text.len() + 64);
        let mut compress = Compress::new(Compression::new(level), false);
        compress.compress_vec(text, &mut out, FlushCompress::Finish).unwrap();
        out
    }

    #[test]
    fn a_text_ends_in_its_last_byte() {
        let mut number = 1_u32;
        let mut noise = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 24) as u8
        };
        let texts = [
            Vec::new(),
            b"a short text".to_vec(),
            (0..40_000).map(|_| noise() % 7).collect(),
            (0..40_000).map(|_| noise()).collect(),
            (0..40_000).map(|place| (place / 9 % 200) as u8 ^ (noise() % 2)).collect(),
        ];
        for text in texts {
            for level in [0, 1, 9] {
                let compressed = compressed(&text, level);
                let bits = bit_count(&compressed).unwrap();
                assert_eq!(bits.div_ceil(8), compressed.len());
            }
        }
    }

    #[test]
    fn an_empty_text_is_one_symbol() {
        // The last block, of codes that are known, and its end: 3 and 7 bits.
        assert_eq!(bit_count(&[0b011, 0]), Some(10));
    }

    #[test]
    fn what_is_no_text_has_no_length() {
        assert_eq!(bit_count(&[]), None);
        assert_eq!(bit_count(&[0b111]), None);
        let text = compressed(&[1, 2, 3, 1, 2, 3, 4].repeat(50), 9);
        assert_eq!(bit_count(&text[..text.len() - 1]), None);
    }
}
