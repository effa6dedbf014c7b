//! Shape of Kubernetes' Pod, derived from the wire type itself: a deserializer records every field that the type's
//! `Deserialize` requests. So no field of the type can be missing here.

mod presence;

use std::{borrow::Cow, collections::HashSet, fmt, sync::LazyLock};

use k8s_openapi::api::core::v1 as wire;
use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::StrDeserializer,
    },
};

/// Type of a value in a document.
#[derive(Debug)]
pub(crate) enum Shape {
    Struct(Vec<Field>),
    List(Box<Shape>),
    /// Map with any keys, and values of one shape.
    Map(Box<Shape>),
    Text,
    Bool,
    Int32,
    Int64,
    Quantity,
    IntOrString,
    Time,
    Any,
}

impl Shape {
    /// Returns the approximate memory of the wire type, bytes, without the content of lists, maps and texts.
    pub fn size(&self) -> usize {
        match self {
            Self::Struct(fields) => fields.iter().map(|field| field.shape.size()).sum(),
            Self::Bool => 1,
            Self::Int32 => 8,
            Self::Int64 => 16,
            _ => 24,
        }
    }
}

/// Field of a structure.
#[derive(Debug)]
pub(crate) struct Field {
    pub name: &'static str,
    pub shape: Shape,
    /// `true` if a zero (`""`, `0`, `false`) differs from no value, as it does if Kubernetes' Go type has a pointer.
    pub has_presence: bool,
}

static POD: LazyLock<Shape> = LazyLock::new(shape_of::<wire::Pod>);
static CONFIG_MAP: LazyLock<Shape> = LazyLock::new(shape_of::<wire::ConfigMap>);
static SECRET: LazyLock<Shape> = LazyLock::new(shape_of::<wire::Secret>);
static CLAIM: LazyLock<Shape> = LazyLock::new(shape_of::<wire::PersistentVolumeClaim>);

/// Returns the shape of a Pod.
pub(crate) fn pod() -> &'static Shape {
    &POD
}

/// Returns the shape of a ConfigMap.
pub(crate) fn config_map() -> &'static Shape {
    &CONFIG_MAP
}

/// Returns the shape of a Secret.
pub(crate) fn secret() -> &'static Shape {
    &SECRET
}

/// Returns the shape of a PersistentVolumeClaim.
pub(crate) fn claim() -> &'static Shape {
    &CLAIM
}

/// Names of all fields.
static NAMES: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let mut names = HashSet::new();
    [pod(), config_map(), secret(), claim()].into_iter().for_each(|shape| add_names(shape, &mut names));
    names
});

fn add_names(shape: &Shape, names: &mut HashSet<&'static str>) {
    match shape {
        Shape::Struct(fields) => {
            for field in fields {
                names.insert(field.name);
                add_names(&field.shape, names);
            }
        }
        Shape::List(inside) | Shape::Map(inside) => add_names(inside, names),
        _ => {}
    }
}

/// Returns a key, borrowed if a field has its name, so that it takes no memory of its own.
pub(crate) fn name(key: String) -> Cow<'static, str> {
    NAMES.get(key.as_str()).map_or_else(|| Cow::Owned(key), |name| Cow::Borrowed(*name))
}

fn shape_of<'de, T: Deserialize<'de>>() -> Shape {
    let mut shape = Shape::Any;
    if let Err(error) = T::deserialize(Probe { shape: &mut shape, sample: "" }) {
        unreachable!("the wire type takes what it asks for: {error}");
    }
    shape
}

/// Calls `see` for every field of a Pod with its path, `[]` for any index, in alphabetical order.
#[cfg(test)]
pub(crate) fn walk(see: &mut dyn FnMut(&str, &Field)) {
    below(pod(), &mut String::new(), see);
}

#[cfg(test)]
fn below(shape: &Shape, path: &mut String, see: &mut dyn FnMut(&str, &Field)) {
    let Shape::Struct(fields) = shape else { return };
    for field in fields {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(field.name);
        see(path, field);
        let mut shape = &field.shape;
        while let Shape::List(inside) = shape {
            path.push_str("[]");
            shape = inside;
        }
        below(shape, path, see);
        path.truncate(length);
    }
}

/// Deserializer that records the requests of a type, and answers with samples.
struct Probe<'a> {
    shape: &'a mut Shape,
    sample: &'static str,
}

#[derive(Debug)]
struct ProbeError(String);

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProbeError {}

impl de::Error for ProbeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = ProbeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        *self.shape = Shape::IntOrString;
        visitor.visit_i32(0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        let (shape, sample) = match name {
            "Quantity" => (Shape::Quantity, "0"),
            "Time" | "MicroTime" => (Shape::Time, "1970-01-01T00:00:00Z"),
            _ => (Shape::Any, ""),
        };
        *self.shape = shape;
        visitor.visit_newtype_struct(StrDeserializer::new(sample))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        let mut found = Vec::with_capacity(fields.len());
        let value = visitor.visit_map(Fields { owner: name, names: fields.iter(), next: None, found: &mut found })?;
        *self.shape = Shape::Struct(found);
        Ok(value)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        let mut item = Shape::Any;
        let value = visitor.visit_seq(Once { shape: Some(&mut item) })?;
        *self.shape = Shape::List(Box::new(item));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        let mut item = Shape::Any;
        let value = visitor.visit_map(Once { shape: Some(&mut item) })?;
        *self.shape = Shape::Map(Box::new(item));
        Ok(value)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        *self.shape = Shape::Text;
        visitor.visit_str(self.sample)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        *self.shape = Shape::Bool;
        visitor.visit_bool(false)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        *self.shape = Shape::Int32;
        visitor.visit_i32(0)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        *self.shape = Shape::Int64;
        visitor.visit_i64(0)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

/// Types that have `apiVersion` and `kind`.
const OBJECTS: [&str; 4] = ["Pod", "ConfigMap", "Secret", "PersistentVolumeClaim"];

/// Fields of a structure, one after another.
struct Fields<'a> {
    owner: &'static str,
    names: std::slice::Iter<'static, &'static str>,
    next: Option<&'static str>,
    found: &'a mut Vec<Field>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ProbeError> {
        let Some(name) = self.names.next() else { return Ok(None) };
        self.next = Some(name);
        let name: StrDeserializer<'_, ProbeError> = (*name).into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ProbeError> {
        let name = self.next.take().unwrap_or_default();
        let sample = match name {
            "apiVersion" if OBJECTS.contains(&self.owner) => "v1",
            "kind" if OBJECTS.contains(&self.owner) => self.owner,
            _ => "",
        };
        let mut shape = Shape::Any;
        let value = seed.deserialize(Probe { shape: &mut shape, sample })?;
        self.found.push(Field { name, shape, has_presence: presence::has(self.owner, name) });
        Ok(value)
    }
}

/// List of one item, or map of one entry.
struct Once<'a> {
    shape: Option<&'a mut Shape>,
}

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = ProbeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ProbeError> {
        self.shape.take().map(|shape| seed.deserialize(Probe { shape, sample: "" })).transpose()
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ProbeError> {
        let key: StrDeserializer<'_, ProbeError> = "key".into_deserializer();
        self.shape.is_some().then(|| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ProbeError> {
        match self.shape.take() {
            Some(shape) => seed.deserialize(Probe { shape, sample: "" }),
            None => Err(de::Error::custom("there is one entry")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_field_takes_no_memory_of_its_own() {
        for field in ["containers", "name", "binaryData", "stringData", "storageClassName"] {
            assert!(matches!(name(field.to_owned()), Cow::Borrowed(_)), "{field}");
        }
        assert_eq!(name("a key".to_owned()), "a key");
    }
}
