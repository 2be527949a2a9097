//! Reads a tree into a typed value through serde, so that each error points at its own place.
//!
//! The values themselves are not repeated in errors: what stands in the wrong place may be a
//! secret.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor, value::StrDeserializer,
};

use crate::nearest::{nearest, suggestion};
use crate::origin::Origin;
use crate::tree::{Entry, Node, Table, Value};

/// Shortest text that is taken out of sentences also where it stands without quotes; a shorter one
/// might be a word of the sentence.
const REPEATED_CHARS_MIN: usize = 8;

/// Why a value could not be read, where, and which member has to go for the rest to be read.
#[derive(Debug)]
pub(crate) struct ReadError {
    pub(crate) fault: Fault,
    /// Place of the fault; none where it is the outermost table as a whole.
    pub(crate) origin: Option<Origin>,
    /// Way to the faulty member from the outermost table.
    pub(crate) path: Vec<String>,
}

/// What is wrong.
#[derive(Debug)]
pub(crate) enum Fault {
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    Missing(&'static str),
    /// A type's own sentence.
    Said(String),
    Other {
        what: String,
        help: Option<String>,
    },
}

impl ReadError {
    fn other(what: impl Into<String>) -> Self {
        Self::from(Fault::Other {
            what: what.into(),
            help: None,
        })
    }

    fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    /// The place of a value, unless a place inside it is known. The value's text is taken out of
    /// the sentence: types may repeat what they could not parse.
    fn at_value(mut self, node: &Node) -> Self {
        if let (Fault::Said(what), Some(text)) = (&mut self.fault, node.text()) {
            *what = what.replace(&format!("{text:?}"), "\"…\"");
            if text.chars().count() >= REPEATED_CHARS_MIN {
                *what = what.replace(text, "…");
            }
        }
        self.at(&node.origin)
    }

    fn under(mut self, step: impl Into<String>) -> Self {
        self.path.insert(0, step.into());
        self
    }
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            origin: None,
            path: Vec::new(),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::UnknownKey { key, .. } => write!(f, "unknown key `{key}`"),
            Fault::Missing(key) => write!(f, "`{key}` is missing"),
            Fault::Said(what) | Fault::Other { what, .. } => f.write_str(what),
        }
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::from(Fault::Said(what.to_string()))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::from(Fault::UnknownKey {
            key: field.to_owned(),
            known,
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::from(Fault::Missing(field))
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        // Only what is near a known word is certainly no secret and is repeated.
        let what = match nearest(variant, known) {
            Some(_) => format!("unknown value `{variant}`"),
            None => "unknown value".to_owned(),
        };
        Self::from(Fault::Other {
            what,
            help: Some(suggestion(variant, known)),
        })
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Str(_) => "a string".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a table".to_owned(),
            other => other.to_string(),
        };
        Self::other(format!("expected {}, found {found}", in_words(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = in_words(expected);
        match found {
            Unexpected::Str(_) => Self::from(Fault::Said(format!("expected {expected}"))),
            other => Self::other(format!("expected {expected}, found {other}")),
        }
    }
}

/// What serde expects, in words of the configuration rather than of the language.
fn in_words(expected: &dyn de::Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        _ => expected,
    }
}

/// A table as a whole, to be read as a struct.
pub(crate) struct TableReader<'a>(pub(crate) &'a Table);

impl<'de> Deserializer<'de> for TableReader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_map(Members {
            entries: self.0.iter(),
            value: None,
        })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

/// One value.
struct NodeReader<'a>(&'a Node);

impl NodeReader<'_> {
    fn read<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, ReadError> {
        let node = self.0;
        let read = match &node.value {
            Value::Text(_) => return NodeReader(&node.expanded()).read(visitor),
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(integer) => visitor.visit_i64(*integer),
            Value::Float(float) => visitor.visit_f64(*float),
            Value::Boolean(boolean) => visitor.visit_bool(*boolean),
            Value::Date => Err(ReadError::other(
                "no date is expected here; text stands in quotes",
            )),
            Value::Array(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
            }),
            Value::Table(table) => TableReader(table).deserialize_any(visitor),
        };
        read.map_err(|error| error.at_value(node))
    }
}

impl<'de> Deserializer<'de> for NodeReader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.read(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.0.value {
            Value::Text(text) => visitor
                .visit_str(text)
                .map_err(|error: ReadError| error.at_value(self.0)),
            _ => self.read(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let node: &Node = &self.0.expanded();
        let read = match &node.value {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Table(table) => match table.iter().next() {
                Some((key, entry)) if table.len() == 1 => visitor.visit_enum(Choice { key, entry }),
                _ => Err(ReadError::other("expected a table with exactly one key")),
            },
            _ => Err(ReadError::other(format!(
                "expected a word, found {}",
                node.noun()
            ))),
        };
        read.map_err(|error| error.at_value(node))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// The members of a table.
struct Members<'a> {
    entries: std::collections::btree_map::Iter<'a, String, Entry>,
    value: Option<(&'a str, &'a Node)>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        let Some((key, entry)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some((key, &entry.node));
        let reader: StrDeserializer<'_, ReadError> = key.as_str().into_deserializer();
        seed.deserialize(reader)
            .map(Some)
            .map_err(|error| error.at(&entry.key).under(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some((key, node)) = self.value.take() else {
            return Err(ReadError::other("a value was asked for before its key"));
        };
        seed.deserialize(NodeReader(node))
            .map_err(|error| error.at_value(node).under(key))
    }
}

/// The items of a list.
struct Items<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let Some((position, node)) = self.items.next() else {
            return Ok(None);
        };
        seed.deserialize(NodeReader(node))
            .map(Some)
            .map_err(|error| error.at_value(node).under(position.to_string()))
    }
}

/// A table with one key, read as a variant that holds something.
struct Choice<'a> {
    key: &'a str,
    entry: &'a Entry,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), ReadError> {
        let reader: StrDeserializer<'_, ReadError> = self.key.into_deserializer();
        let variant = seed
            .deserialize(reader)
            .map_err(|error| error.at(&self.entry.key))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Err(ReadError::other("expected a word, found a table").at(&self.entry.key))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        let node = &self.entry.node;
        seed.deserialize(NodeReader(node))
            .map_err(|error| error.at_value(node))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        NodeReader(&self.entry.node).read(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        NodeReader(&self.entry.node).read(visitor)
    }
}
