//! Text to tokens.

use std::ops::Range;

/// Byte range of a token in the text.
pub(super) type Span = Range<usize>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A bare word: `graph`, `mul`, `f32`, `inf`.
    Word(String),
    /// `"..."`, escapes resolved.
    Quoted(String),
    /// `%7`
    Id(u32),
    /// `%x` or `%"x y"`
    Named(String),
    /// `@word` or `@"..."`
    At(String),
    /// Starts with a digit or a minus.
    Number(String),
    /// One of `( ) { } [ ] : , = #`, or `->` as `>`.
    Sign(char),
    End,
}

impl Token {
    /// How an error message names it.
    pub fn describe(&self) -> String {
        match self {
            Token::Word(w) | Token::Number(w) => format!("`{w}`"),
            Token::Quoted(w) => format!("{w:?}"),
            Token::Id(n) => format!("`%{n}`"),
            Token::Named(n) => format!("`%{n}`"),
            Token::At(n) => format!("`@{n}`"),
            Token::Sign('>') => "`->`".into(),
            Token::Sign(c) => format!("`{c}`"),
            Token::End => "the end of the text".into(),
        }
    }
}

/// Ids above this leave no room for the nodes passes add.
pub(super) const LARGEST_ID: u32 = 1 << 30;

fn starts_word(c: u8) -> bool {
    c.is_ascii_alphabetic() || c == b'_'
}

fn in_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-')
}

/// May this name stand without quotes?
pub(super) fn is_bare(s: &str) -> bool {
    s.as_bytes().first().is_some_and(|&c| starts_word(c)) && s.bytes().all(in_word)
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

type Lexed<T> = Result<T, (Span, String)>;

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Lexer { text, at: 0 }
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_blanks(&mut self) {
        loop {
            while self.byte(0).is_ascii_whitespace() {
                self.at += 1;
            }
            if !self.text[self.at..].starts_with("//") {
                return;
            }
            self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
        }
    }

    /// The next token and where it stands. Errors name the place and what is wrong there.
    pub fn next(&mut self) -> Lexed<(Token, Span)> {
        self.skip_blanks();
        let start = self.at;
        let token = self.token()?;
        Ok((token, start..self.at))
    }

    fn token(&mut self) -> Lexed<Token> {
        let start = self.at;
        let Some(c) = self.text[start..].chars().next() else { return Ok(Token::End) };
        match c {
            '-' if self.byte(1) == b'>' => {
                self.at += 2;
                Ok(Token::Sign('>'))
            }
            '(' | ')' | '{' | '}' | '[' | ']' | ':' | ',' | '=' | '#' => {
                self.at += 1;
                Ok(Token::Sign(c))
            }
            '"' => Ok(Token::Quoted(self.quoted()?)),
            '%' if self.byte(1).is_ascii_digit() => {
                self.at += 1;
                let digits = self.take(|c| c.is_ascii_digit());
                match digits.parse() {
                    Ok(id) if id <= LARGEST_ID => Ok(Token::Id(id)),
                    _ => {
                        Err((start..self.at, format!("the id %{digits} is too large; at most {LARGEST_ID}")))
                    }
                }
            }
            '%' | '@' => {
                self.at += 1;
                let name = match self.byte(0) {
                    b'"' => self.quoted()?,
                    b if starts_word(b) => self.word(),
                    _ => {
                        let what = if c == '%' { "a name or a number" } else { "a name" };
                        return Err((start..self.at, format!("`{c}` must be followed by {what}")));
                    }
                };
                Ok(if c == '%' { Token::Named(name) } else { Token::At(name) })
            }
            '-' | '0'..='9' => {
                self.at += 1;
                while self.byte(0).is_ascii_alphanumeric()
                    || self.byte(0) == b'.'
                    || matches!(self.byte(0), b'-' | b'+')
                        && matches!(self.text.as_bytes()[self.at - 1], b'e' | b'E')
                {
                    self.at += 1;
                }
                Ok(Token::Number(self.text[start..self.at].into()))
            }
            c if c.is_ascii() && starts_word(c as u8) => Ok(Token::Word(self.word())),
            c => {
                self.at += c.len_utf8();
                Err((
                    start..self.at,
                    format!("the character {c:?} cannot stand here; names that need it go in double quotes"),
                ))
            }
        }
    }

    fn take(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while accept(self.byte(0)) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while in_word(self.byte(0)) && !(self.byte(0) == b'-' && self.byte(1) == b'>') {
            self.at += 1;
        }
        self.text[start..self.at].into()
    }

    /// From the opening quote to the closing one, on one line.
    fn quoted(&mut self) -> Lexed<String> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let Some(c) = self.text[self.at..].chars().next().filter(|&c| c != '\n') else {
                return Err((start..self.at, "the name has no closing quote on its line".into()));
            };
            let from = self.at;
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(out),
                '\\' => match self.escape() {
                    Some(c) => out.push(c),
                    None => {
                        return Err((from..self.at, r#"unknown escape; one of \" \\ \n \u{hex}"#.into()));
                    }
                },
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let c = self.byte(0);
        match c {
            b'"' | b'\\' => {
                self.at += 1;
                Some(c as char)
            }
            b'n' => {
                self.at += 1;
                Some('\n')
            }
            b'u' if self.byte(1) == b'{' => {
                self.at += 2;
                let code = u32::from_str_radix(self.take(|c| c.is_ascii_hexdigit()), 16).ok();
                if self.byte(0) != b'}' {
                    return None;
                }
                self.at += 1;
                code.and_then(char::from_u32)
            }
            _ => None,
        }
    }
}
