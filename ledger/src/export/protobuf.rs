//! Protobuf's wire format, as far as Perfetto needs it: varints, fixed 64-bit words, and fields with
//! a length.

/// A message under construction.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// The encoded message.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Empties it, to be used again.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// An integer, enum or boolean.
    pub(super) fn uint(&mut self, field: u32, value: u64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// A `fixed64`.
    pub(super) fn fixed(&mut self, field: u32, value: u64) -> &mut Self {
        self.varint(u64::from(field) << 3 | 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A text or an encoded message.
    pub(super) fn data(&mut self, field: u32, data: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(data.len() as u64);
        self.bytes.extend_from_slice(data);
        self
    }

    /// A message within this one.
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.data(field, &inner.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_the_specification_shows() {
        // The examples of protobuf's encoding guide: field 1 = 150; field 2 = "testing".
        let mut m = Message::default();
        m.uint(1, 150);
        assert_eq!(m.bytes(), [0x08, 0x96, 0x01]);
        m.clear();
        m.data(2, b"testing");
        assert_eq!(m.bytes(), b"\x12\x07testing");
        m.clear();
        m.message(3, |inner| {
            inner.uint(1, 150);
        });
        assert_eq!(m.bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        m.clear();
        m.fixed(1, 1);
        assert_eq!(m.bytes(), [0x09, 1, 0, 0, 0, 0, 0, 0, 0]);
    }
}
