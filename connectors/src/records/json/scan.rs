//! The scan: members of an object and elements of an array as raw slices, checked as they go by.

/// Deepest nesting taken; below the 128 at which `serde_json` gives up, so that what the scan
/// accepts can also be read in full.
pub(crate) const DEPTH_MAX: usize = 100;

/// Where the text stops being JSON, and what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{expected} expected at byte {at}")]
pub(crate) struct Broken {
    at: usize,
    expected: &'static str,
}

/// The raw slice of one value.
pub(crate) type Raw<'a> = &'a [u8];

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

/// Bytes before the first quote, backslash or control character. Eight at a time, since most
/// strings are short and all of a record goes through here.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // The lowest byte that is flagged is rightly so; those above it may not be.
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGHS;
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = is(word, b'"') | is(word, b'\\') | below(word, 0x20);
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    let found = rest.iter().position(ends).unwrap_or(rest.len());
    words.len() * 8 + found
}

impl<'a> Scan<'a> {
    fn broken<T>(&self, expected: &'static str) -> Result<T, Broken> {
        Err(Broken {
            at: self.at,
            expected,
        })
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), Broken> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        self.broken(expected)
    }

    fn slice(&self, from: usize) -> Raw<'a> {
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// A string, quotes included. Stands on the opening quote.
    fn string(&mut self) -> Result<Raw<'a>, Broken> {
        let start = self.at;
        self.take(b'"', "a string")?;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let length = plain_length(rest);
            self.at += length + 1;
            match rest.get(length) {
                Some(b'"') => return Ok(self.slice(start)),
                Some(b'\\') => self.escape()?,
                Some(_) => return self.broken("no control character in a string"),
                None => return self.broken("the end of a string"),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<(), Broken> {
        match self.text.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let digits = self.text.get(self.at + 1..self.at + 5).unwrap_or_default();
                if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return self.broken("four hexadecimal digits");
                }
                self.at += 5;
            }
            _ => return self.broken("an escape"),
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start {
            return self.broken("a digit");
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Broken> {
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Broken> {
        if self.text.get(self.at..self.at + word.len()) == Some(word) {
            self.at += word.len();
            return Ok(());
        }
        self.broken("a value")
    }

    /// Any value, checked to its end.
    fn value(&mut self, depth: usize) -> Result<Raw<'a>, Broken> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => return self.string(),
            Some(b'{') => self.container(b'}', depth)?,
            Some(b'[') => self.container(b']', depth)?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(b'n') => self.word(b"null")?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return self.broken("a value"),
        }
        Ok(self.slice(start))
    }

    fn container(&mut self, close: u8, depth: usize) -> Result<(), Broken> {
        if depth >= DEPTH_MAX {
            return self.broken("less nesting");
        }
        self.at += 1;
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            if close == b'}' {
                self.peek();
                self.string()?;
                self.take(b':', "a colon")?;
            }
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.broken("a comma or the end of a container"),
            }
        }
    }

    /// Nothing but blanks may follow.
    fn end(&mut self) -> Result<(), Broken> {
        if self.peek().is_none() {
            return Ok(());
        }
        self.broken("the end of the text")
    }
}

/// The members of a JSON object, or the elements of an array, as they come by. Read to the end, the
/// whole text has been checked; stopped early, what was passed has been.
pub(crate) struct Parts<'a> {
    scan: Scan<'a>,
    close: u8,
    started: bool,
    done: bool,
}

impl<'a> Parts<'a> {
    fn new(text: Raw<'a>, close: u8) -> Self {
        Self {
            scan: Scan { text, at: 0 },
            close,
            started: false,
            done: false,
        }
    }

    /// Moves to the next part; false at the end.
    fn advance(&mut self) -> Result<bool, Broken> {
        let scan = &mut self.scan;
        if !self.started {
            self.started = true;
            let (open, expected) = match self.close {
                b'}' => (b'{', "an object"),
                _ => (b'[', "an array"),
            };
            scan.take(open, expected)?;
            if scan.peek() != Some(self.close) {
                return Ok(true);
            }
        } else if scan.peek() != Some(self.close) {
            scan.take(b',', "a comma or the end")?;
            return Ok(true);
        }
        scan.at += 1;
        scan.end()?;
        Ok(false)
    }

    fn part(&mut self) -> Result<Option<(Raw<'a>, Raw<'a>)>, Broken> {
        if !self.advance()? {
            return Ok(None);
        }
        let mut key: Raw<'a> = b"";
        if self.close == b'}' {
            self.scan.peek();
            key = self.scan.string()?;
            self.scan.take(b':', "a colon")?;
        }
        Ok(Some((key, self.scan.value(1)?)))
    }
}

impl<'a> Iterator for Parts<'a> {
    /// The key (a raw string, empty for elements of an array) and the value.
    type Item = Result<(Raw<'a>, Raw<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let part = self.part();
        self.done = !matches!(part, Ok(Some(_)));
        part.transpose()
    }
}

/// The members of an object.
pub(crate) fn members(text: Raw<'_>) -> Parts<'_> {
    Parts::new(text, b'}')
}

/// The elements of an array.
pub(crate) fn elements(text: Raw<'_>) -> Parts<'_> {
    Parts::new(text, b']')
}

/// The one value that a text is, without the blanks around it.
pub(crate) fn only(text: Raw<'_>) -> Result<Raw<'_>, Broken> {
    let mut scan = Scan { text, at: 0 };
    let value = scan.value(0)?;
    scan.end()?;
    Ok(value)
}
