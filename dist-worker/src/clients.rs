use base_types::ClientId;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use slab::Slab;
use std::hash::BuildHasher;

/// The client ids of a tenant's routes, each kept once and named by a number.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    slots: Slab<Slot>,
    numbers: HashTable<u32>,
    hash: RandomState,
}

#[derive(Debug)]
struct Slot {
    id: ClientId,
    routes: u32,
}

impl Clients {
    pub(crate) fn get(&self, number: u32) -> Option<&ClientId> {
        self.slots.get(number as usize).map(|slot| &slot.id)
    }

    pub(crate) fn find(&self, id: &ClientId) -> Option<u32> {
        self.numbers.find(self.hash.hash_one(id), |&number| self.get(number) == Some(id)).copied()
    }

    /// The number of a client, to be given back once for each time it was taken.
    pub(crate) fn take(&mut self, id: &ClientId) -> u32 {
        if let Some(number) = self.find(id) {
            self.slots[number as usize].routes += 1;
            return number;
        }
        let number = self.slots.insert(Slot { id: id.detached(), routes: 1 }) as u32;
        self.numbers
            .insert_unique(self.hash.hash_one(id), number, |&other| self.hash.hash_one(&self.slots[other as usize].id));
        number
    }

    pub(crate) fn give_back(&mut self, number: u32) {
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        slot.routes -= 1;
        if slot.routes == 0 {
            let hash = self.hash.hash_one(&slot.id);
            if let Ok(entry) = self.numbers.find_entry(hash, |&other| other == number) {
                entry.remove();
            }
            self.slots.remove(number as usize);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}
