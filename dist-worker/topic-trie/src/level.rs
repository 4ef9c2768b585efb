/// The text of one level: up to 15 bytes in place, longer ones in a [`LongLevels`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level([u8; 16]);

const INLINE_MAX: usize = 15;
const LONG: u8 = u8::MAX;

impl Level {
    pub(crate) const EMPTY: Self = Self([0; 16]);

    pub(crate) fn new(text: &str, long: &mut LongLevels) -> Self {
        let mut bytes = [0; 16];
        if text.len() <= INLINE_MAX {
            bytes[0] = text.len() as u8;
            bytes[1..=text.len()].copy_from_slice(text.as_bytes());
        } else {
            bytes[0] = LONG;
            bytes[1..5].copy_from_slice(&long.add(text).to_le_bytes());
        }
        Self(bytes)
    }

    pub(crate) fn bytes<'a>(&'a self, long: &'a LongLevels) -> &'a [u8] {
        match self.0[0] {
            LONG => long.get(self.index()),
            len => &self.0[1..=usize::from(len)],
        }
    }

    /// Gives back what is kept elsewhere.
    pub(crate) fn free(self, long: &mut LongLevels) {
        if self.0[0] == LONG {
            long.remove(self.index());
        }
    }

    fn index(&self) -> usize {
        u32::from_le_bytes([self.0[1], self.0[2], self.0[3], self.0[4]]) as usize
    }
}

/// The levels of more than 15 bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct LongLevels {
    texts: Vec<Box<[u8]>>,
    free: Vec<u32>,
}

impl LongLevels {
    fn add(&mut self, text: &str) -> u32 {
        if let Some(index) = self.free.pop() {
            self.texts[index as usize] = text.as_bytes().into();
            return index;
        }
        self.texts.push(text.as_bytes().into());
        (self.texts.len() - 1) as u32
    }

    fn get(&self, index: usize) -> &[u8] {
        &self.texts[index]
    }

    fn remove(&mut self, index: usize) {
        self.texts[index] = Box::default();
        self.free.push(index as u32);
    }
}
