//! Lenient reading of fields that others write carelessly: `null` equals absent, and lists have bounds.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use stanchion_untrusted::Limit;

use super::Descriptor;
use crate::limits;

/// Reads a value; `null` becomes the default.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Reads a list of texts; `null` becomes an empty list, and `null` in it an empty text.
pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let texts = Option::<Vec<Option<String>>>::deserialize(from)?.unwrap_or_default();
    Ok(texts.into_iter().map(Option::unwrap_or_default).collect())
}

/// Reads the keys of a map and ignores the values; `null` has no keys.
pub(super) fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let map = Option::<BTreeMap<String, IgnoredAny>>::deserialize(from)?.unwrap_or_default();
    Ok(map.into_keys().collect())
}

/// Reads the layers of a manifest.
pub(super) fn layers<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Descriptor>>, D::Error> {
    from.deserialize_any(List { limit: limits::LAYERS, read: Some, of: PhantomData::<Descriptor> })
}

/// Reads the entries of an index without the unreadable ones.
pub(super) fn entries<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Descriptor>>, D::Error> {
    from.deserialize_any(List { limit: limits::ENTRIES, read: Entry::readable, of: PhantomData::<Entry> })
}

/// An entry of an index.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Readable(Descriptor),
    Other(IgnoredAny),
}

impl Entry {
    fn readable(self) -> Option<Descriptor> {
        match self {
            Self::Readable(descriptor) => Some(descriptor),
            Self::Other(_) => None,
        }
    }
}

struct List<T> {
    limit: Limit,
    read: fn(T) -> Option<Descriptor>,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Option<Vec<Descriptor>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of descriptors")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut count) = (Vec::new(), 0);
        while let Some(next) = list.next_element()? {
            count += 1;
            if count > self.limit.size() {
                let Limit { name, most } = self.limit;
                return Err(A::Error::custom(format!("a list has more than {most} items (limit {name:?})")));
            }
            found.extend((self.read)(next));
        }
        Ok(Some(found))
    }
}
