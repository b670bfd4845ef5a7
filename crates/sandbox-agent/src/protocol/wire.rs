//! The byte layout of the protocol: little-endian integers, and byte strings with a 32-bit length.
//!
//! Decoding never panics and never allocates more than the input is long, whatever the peer sends.

use std::fmt;

/// Why bytes could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ended before the value did.
    Truncated,
    /// Bytes were left over after the value.
    Trailing,
    /// An enum tag, boolean or string that the protocol does not have.
    Invalid,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "message is truncated",
            Self::Trailing => "message has trailing bytes",
            Self::Invalid => "message holds a value outside the protocol",
        })
    }
}

impl std::error::Error for DecodeError {}

/// What is left of the input.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Takes exactly `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.0.len()
    }
}

/// A value with one encoding.
pub trait Wire: Sized {
    /// Appends the encoding of `self`.
    fn put(&self, out: &mut Vec<u8>);

    /// Decodes one value from the front of `input`.
    ///
    /// # Errors
    /// [`DecodeError`] if the input is no encoding of this type.
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Encodes into a new buffer.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Decodes a whole message.
    ///
    /// # Errors
    /// [`DecodeError`] if the input is no encoding of this type or is longer than it.
    fn decode(input: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(input);
        let value = Self::take(&mut reader)?;
        if reader.remaining() == 0 {
            Ok(value)
        } else {
            Err(DecodeError::Trailing)
        }
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Wire for $ty {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let bytes = input.bytes(size_of::<$ty>())?;
                bytes.try_into().map(<$ty>::from_le_bytes).map_err(|_| DecodeError::Truncated)
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid),
        }
    }
}

/// Bytes that need not be text: paths, arguments, output.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl Wire for Blob {
    fn put(&self, out: &mut Vec<u8>) {
        put_len(self.0.len(), out);
        out.extend_from_slice(&self.0);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = u32::take(input)? as usize;
        Ok(Self(input.bytes(len)?.to_vec()))
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_len(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_utf8(Blob::take(input)?.0).map_err(|_| DecodeError::Invalid)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        bool::take(input)?.then(|| T::take(input)).transpose()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_len(self.len(), out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = u32::take(input)? as usize;
        // Every item of the protocol takes at least one byte, so a length beyond the rest is a lie.
        if len > input.remaining() {
            return Err(DecodeError::Truncated);
        }
        let mut items = Vec::new();
        for _ in 0..len {
            items.push(T::take(input)?);
        }
        Ok(items)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::take(input)?, B::take(input)?))
    }
}

/// Lengths are 32 bits; a message is bounded far below that, so a longer value is a bug of the caller
/// and is encoded as a length that cannot decode.
fn put_len(len: usize, out: &mut Vec<u8>) {
    u32::try_from(len).unwrap_or(u32::MAX).put(out);
}

/// Declares a struct whose encoding is its fields in order.
macro_rules! wire_struct {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
        impl $crate::protocol::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::protocol::Wire::put(&self.$field, out);)*
            }
            fn take(input: &mut $crate::protocol::Reader<'_>) -> Result<Self, $crate::protocol::DecodeError> {
                Ok(Self { $($field: $crate::protocol::Wire::take(input)?),* })
            }
        }
    };
}

/// Declares an enum whose encoding is a one-byte tag and the fields in order.
macro_rules! wire_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $tag:literal => $variant:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? }),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant { $($(#[$fmeta])* $field: $ty),* }),* }
        impl $crate::protocol::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field),* } => {
                        out.push($tag);
                        $($crate::protocol::Wire::put($field, out);)*
                    })*
                }
            }
            fn take(input: &mut $crate::protocol::Reader<'_>) -> Result<Self, $crate::protocol::DecodeError> {
                match <u8 as $crate::protocol::Wire>::take(input)? {
                    $($tag => Ok(Self::$variant { $($field: $crate::protocol::Wire::take(input)?),* }),)*
                    _ => Err($crate::protocol::DecodeError::Invalid),
                }
            }
        }
    };
}

pub(crate) use {wire_enum, wire_struct};
