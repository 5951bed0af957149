//! Words of a label selector. Whitespace separates; everything that is not a symbol is an identifier, and whether it is a
//! good label is judged later.

/// A word. `In` and `NotIn` are identifiers where a value or a key is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    End,
    Identifier(String),
    Comma,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    Open,
    Close,
    Error(String),
}

impl Token {
    /// As it was written, for messages.
    pub(super) fn literal(&self) -> &str {
        match self {
            Self::End => "",
            Self::Identifier(text) | Self::Error(text) => text,
            Self::Comma => ",",
            Self::Not => "!",
            Self::Equals => "=",
            Self::NotEquals => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::Open => "(",
            Self::Close => ")",
        }
    }
}

/// All words of a text; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if is_symbol(first) { symbol(rest) } else { word(rest) };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    tokens.push(Token::End);
    tokens
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn word(text: &str) -> (Token, usize) {
    let end = text.find(|c: char| is_symbol(c) || c.is_whitespace()).unwrap_or(text.len());
    (Token::Identifier(text.get(..end).unwrap_or_default().to_owned()), end)
}

/// The longest symbol that a run of symbol characters begins with.
fn symbol(text: &str) -> (Token, usize) {
    const SYMBOLS: [(&str, Token); 9] = [
        ("==", Token::Equals),
        ("!=", Token::NotEquals),
        ("=", Token::Equals),
        ("!", Token::Not),
        (">", Token::Greater),
        ("<", Token::Less),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
    ];
    let found = SYMBOLS.into_iter().find(|(symbol, _)| text.starts_with(symbol));
    found.map_or_else(|| (Token::Error(text.to_owned()), text.len()), |(symbol, token)| (token, symbol.len()))
}
