//! Finds where a JSON value ends, without parsing it: counts brackets outside strings.
//!
//! Remembers where it is, so that a value may come in several parts and no byte is read twice.
//! It does not tell `[` from `{`: what is not valid JSON is found by whoever parses the record.

/// How far into a value the bytes so far have led.
#[derive(Debug, Clone, Default)]
pub(super) struct Scanner {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// Before the opening bracket of a value.
    pub(super) fn outside() -> Self {
        Self::default()
    }

    /// Behind the opening bracket of a value.
    pub(super) fn inside() -> Self {
        Self {
            depth: 1,
            ..Self::default()
        }
    }

    pub(super) fn in_string(&self) -> bool {
        self.in_string
    }

    /// Reads on; the index behind the bracket that closes the value, or `None` if it is not here.
    /// A line end inside a string is no JSON: its index is the value's end then.
    pub(super) fn close(&mut self, bytes: &[u8]) -> Option<usize> {
        self.run(bytes, false)
    }

    /// Reads on over a value that has no brackets of its own (or none that match); the index of
    /// the comma, bracket or line end that follows it.
    pub(super) fn scalar(&mut self, bytes: &[u8]) -> Option<usize> {
        self.run(bytes, true)
    }

    fn run(&mut self, bytes: &[u8], scalar: bool) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.escaped {
                self.escaped = false;
                at += 1;
                continue;
            }
            if self.in_string {
                at += memchr::memchr3(b'"', b'\\', b'\n', &bytes[at..])?;
                match bytes[at] {
                    b'"' => self.in_string = false,
                    b'\\' => self.escaped = true,
                    _ => return Some(at),
                }
                at += 1;
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b',' | b']' | b'}' | b'\n' if scalar => return Some(at),
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_its_bracket_closes() {
        let cases: &[(&str, Option<usize>)] = &[
            ("{}", Some(2)),
            ("{}{}", Some(2)),
            (r#"{"a":"}"}x"#, Some(9)),
            (r#"{"a":"\"}"}"#, Some(11)),
            (r#"{"a":"\\"}"#, Some(10)),
            ("[[],{}]", Some(7)),
            (r#"{"a":"#, None),
            (r#"{"a":"}"#, None),
            ("{\"a\":\"b\n{}", Some(7)),
        ];
        for (text, want) in cases {
            assert_eq!(Scanner::outside().close(text.as_bytes()), *want, "{text}");
        }
    }

    #[test]
    fn the_cut_between_two_parts_may_fall_anywhere() {
        let text = br#"{"a":"\\\"}]","b":[{"c":"\u007d"}]} "#;
        for cut in 0..text.len() {
            let mut scanner = Scanner::outside();
            let (front, back) = text.split_at(cut);
            let end = match scanner.close(front) {
                Some(end) => end,
                None => {
                    cut + scanner
                        .close(back)
                        .expect("the value closes in the second part")
                }
            };
            assert_eq!(end, text.len() - 1, "cut at {cut}");
        }
    }
}
