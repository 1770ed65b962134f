//! A buffer that grows without leaving anything of what it holds behind, as `Vec` would.

use std::fmt;
use std::io;

use zeroize::Zeroizing;

/// Bytes that erase themselves.
#[derive(Default)]
pub(crate) struct Erasing(Zeroizing<Vec<u8>>);

impl Erasing {
    /// With room for so many.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds some. Where they move, the place that they were in is erased.
    pub(crate) fn extend(&mut self, more: &[u8]) {
        if self.0.capacity() - self.0.len() < more.len() {
            let capacity = (self.0.len() + more.len()).max(self.0.capacity() * 2);
            let mut grown = Zeroizing::new(Vec::with_capacity(capacity));
            grown.extend_from_slice(&self.0);
            self.0 = grown;
        }
        self.0.extend_from_slice(more);
    }

    /// All of them.
    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl io::Write for Erasing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Erasing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend(text.as_bytes());
        Ok(())
    }
}
