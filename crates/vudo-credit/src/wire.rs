//! The canonical bytes of everything that is signed, sent or stored.
//!
//! Numbers of fixed size are big-endian, counts are varints in their shortest form, and there is
//! one encoding for each value. So equal values have equal hashes, and whoever decodes bytes and
//! encodes the result again has the same bytes.

pub use vudo_crdt::wire::{MalformedFrame, Reader};
use vudo_crdt::wire::{write_byte, write_bytes, write_varint};

/// A value with canonical bytes.
pub trait Wire: Sized {
    /// Appends the value's bytes.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads a value from the front.
    ///
    /// # Errors
    /// The bytes are not what [`Wire::write`] writes.
    fn read(reader: &mut Reader<'_>) -> Result<Self, MalformedFrame>;

    /// The value's bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// The value that all of these bytes are.
    ///
    /// # Errors
    /// As [`Wire::read`], or bytes follow.
    fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedFrame> {
        let mut reader = Reader::new(bytes);
        let value = Self::read(&mut reader)?;
        if reader.is_empty() { Ok(value) } else { Err(MalformedFrame::TrailingBytes) }
    }
}

impl Wire for u8 {
    fn write(&self, out: &mut Vec<u8>) {
        write_byte(out, *self);
    }

    fn read(reader: &mut Reader<'_>) -> Result<u8, MalformedFrame> {
        reader.byte()
    }
}

impl Wire for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<u32, MalformedFrame> {
        reader.array().map(u32::from_be_bytes)
    }
}

impl Wire for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<u64, MalformedFrame> {
        reader.array().map(u64::from_be_bytes)
    }
}

impl Wire for i128 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<i128, MalformedFrame> {
        reader.array().map(i128::from_be_bytes)
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(reader: &mut Reader<'_>) -> Result<[u8; N], MalformedFrame> {
        reader.array()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        write_byte(out, self.is_some().into());
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Option<T>, MalformedFrame> {
        match reader.byte()? {
            0 => Ok(None),
            1 => T::read(reader).map(Some),
            _ => Err(MalformedFrame::ValueNotCanonical),
        }
    }
}

impl<T: Wire> Wire for Box<T> {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Box<T>, MalformedFrame> {
        T::read(reader).map(Box::new)
    }
}

/// A value that comes in lists. Where a list must be shorter than this, whoever checks its contents
/// checks that as well.
pub trait Listed: Wire {
    /// Most values of one list.
    const COUNT_MAX: usize;
}

impl<T: Listed> Wire for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        write_list(out, self);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Vec<T>, MalformedFrame> {
        read_list(reader, T::COUNT_MAX)
    }
}

/// Appends a count and the values.
pub(crate) fn write_list<T: Wire>(out: &mut Vec<u8>, values: &[T]) {
    write_varint(out, values.len() as u64);
    for value in values {
        value.write(out);
    }
}

/// Reads a count of at most `count_max` and that many values. Memory is taken as values are read,
/// so a count that promises more than follows costs nothing.
pub(crate) fn read_list<T: Wire>(
    reader: &mut Reader<'_>,
    count_max: usize,
) -> Result<Vec<T>, MalformedFrame> {
    let count = reader.varint_up_to(count_max as u64)?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(T::read(reader)?);
    }
    Ok(values)
}

/// Appends a text with its length.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    write_bytes(out, text.as_bytes());
}

/// Reads a text of at most `bytes_max` bytes.
pub(crate) fn read_text(
    reader: &mut Reader<'_>,
    bytes_max: usize,
) -> Result<String, MalformedFrame> {
    let bytes = reader.bytes()?;
    if bytes.len() > bytes_max {
        return Err(MalformedFrame::TooLarge);
    }
    let text = str::from_utf8(bytes).map_err(|_| MalformedFrame::StringNotUtf8)?;
    Ok(text.to_owned())
}

/// Writes [`Wire`] for a struct field by field, in the order of the list.
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                $($crate::wire::Wire::write(&self.$field, out);)*
            }

            fn read(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<$name, $crate::wire::MalformedFrame> {
                $(let $field = $crate::wire::Wire::read(reader)?;)*
                Ok($name { $($field),* })
            }
        }
    };
}
pub(crate) use wire_struct;

/// Writes [`Wire`] for an enum: one byte that tells the variant, then what it holds.
macro_rules! wire_enum {
    ($name:ident {
        $($tag:literal => $variant:ident $(($item:ident))? $({ $($field:ident),+ })?),* $(,)?
    }) => {
        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $($name::$variant $(($item))? $({ $($field),+ })? => {
                        let tag: u8 = $tag;
                        $crate::wire::Wire::write(&tag, out);
                        $($crate::wire::Wire::write($item, out);)?
                        $($($crate::wire::Wire::write($field, out);)+)?
                    })*
                }
            }

            fn read(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<$name, $crate::wire::MalformedFrame> {
                Ok(match reader.byte()? {
                    $($tag => {
                        $(let $item = $crate::wire::Wire::read(reader)?;)?
                        $($(let $field = $crate::wire::Wire::read(reader)?;)+)?
                        $name::$variant $(($item))? $({ $($field),+ })?
                    })*
                    _ => return Err($crate::wire::MalformedFrame::ValueNotCanonical),
                })
            }
        }
    };
}
pub(crate) use wire_enum;
