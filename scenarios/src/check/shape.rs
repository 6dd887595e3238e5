//! What the JSON schema says of one place, in the few shapes that the format has.

use crate::schema_json::schema_json;
use crate::tree::{Path, Step, Table};
use serde_json::Value as Json;

/// A schema, references followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    schema: &'static Json,
    /// Name of the definition it was reached through, which is the name of its type.
    name: Option<&'static str>,
    /// The default of the field it was reached through.
    default: Option<&'static Json>,
    /// What the field it was reached through says of itself.
    about: Option<&'static str>,
}

/// The forms that a value can have.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    /// A table whose other keys depend on its `kind`.
    Tagged(Vec<Variant>),
    /// A table with known keys.
    Record,
    /// A table with keys of the user's choice, all of one shape.
    Map(Shape),
    /// An array, all elements of one shape.
    List(Shape),
    /// One of these words.
    Words(Vec<&'static str>),
    /// Any text; with a format, a quantity.
    Text(Option<&'static str>),
    /// A whole number within these limits, both included.
    Integer(i128, i128),
    /// A number.
    Number,
    /// True or false.
    Bool,
    /// A number, or one of these words.
    NumberOr(Vec<&'static str>),
}

/// One `kind` of a tagged table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) kind: &'static str,
    pub(crate) shape: Shape,
}

impl Shape {
    /// The shape of a whole scenario.
    pub(crate) fn root() -> Self {
        Self::follow(schema_json())
    }

    fn follow(schema: &'static Json) -> Self {
        let mut shape = Self {
            schema,
            name: None,
            default: schema.get("default"),
            about: schema.get("description").and_then(Json::as_str),
        };
        loop {
            if let Some(only) = shape.schema.pointer("/allOf/0") {
                shape.schema = only;
            } else if let Some(Json::String(reference)) = shape.schema.get("$ref") {
                let name = reference.rsplit('/').next().unwrap_or_default();
                // References are generated together with what they refer to.
                shape.schema = &schema_json()["definitions"][name];
                shape.name = Some(name);
            } else {
                return shape;
            }
        }
    }

    /// Name of its type, such as `RoutingSpec`.
    pub(crate) fn type_name(self) -> Option<&'static str> {
        self.name
    }

    /// What the field says of itself.
    pub(crate) fn about(self) -> Option<&'static str> {
        self.about
    }

    /// What a value here looks like.
    pub(crate) fn form(self) -> Form {
        if let Some(Json::Array(choices)) = self.schema.get("oneOf") {
            return Self::one_of(choices);
        }
        if let Some(Json::Array(choices)) = self.schema.get("anyOf") {
            return Form::NumberOr(choices.iter().flat_map(words).collect());
        }
        match self.schema.get("type").and_then(Json::as_str) {
            Some("object") => match self.schema.get("additionalProperties") {
                Some(values @ Json::Object(_)) => Form::Map(Self::follow(values)),
                _ => Form::Record,
            },
            Some("array") => Form::List(Self::follow(&self.schema["items"])),
            Some("string") if self.schema.get("enum").is_some() => {
                Form::Words(words(self.schema).collect())
            }
            Some("integer") => {
                let (least, most) = self.limits();
                Form::Integer(least, most)
            }
            Some("number") => Form::Number,
            Some("boolean") => Form::Bool,
            _ => Form::Text(self.schema.get("format").and_then(Json::as_str)),
        }
    }

    fn one_of(choices: &'static [Json]) -> Form {
        let variants: Vec<_> = choices
            .iter()
            .filter_map(|schema| {
                let kind = schema.pointer("/properties/kind/enum/0")?.as_str()?;
                let shape = Self::follow(schema);
                Some(Variant { kind, shape })
            })
            .collect();
        if variants.is_empty() {
            Form::Words(choices.iter().flat_map(words).collect())
        } else {
            Form::Tagged(variants)
        }
    }

    fn limits(self) -> (i128, i128) {
        match self.schema.get("format").and_then(Json::as_str) {
            Some("uint8") => (0, u8::MAX.into()),
            Some("uint16") => (0, u16::MAX.into()),
            Some("uint32") => (0, u32::MAX.into()),
            Some("int32") => (i32::MIN.into(), i32::MAX.into()),
            // TOML's integers end where signed 64-bit numbers do.
            Some("uint64") => (0, i64::MAX.into()),
            _ => (i64::MIN.into(), i64::MAX.into()),
        }
    }

    /// The keys of a record, in the order of the alphabet, each with its shape.
    pub(crate) fn keys(self) -> impl Iterator<Item = (&'static str, Self)> {
        self.schema
            .get("properties")
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
            .map(|(key, schema)| (key.as_str(), Self::follow(schema)))
    }

    /// The shape of one key of a record.
    pub(crate) fn key(self, key: &str) -> Option<Self> {
        let schema = self.schema.get("properties")?.get(key)?;
        Some(Self::follow(schema))
    }

    /// The keys that a record must have, `kind` left out.
    pub(crate) fn required(self) -> impl Iterator<Item = &'static str> {
        self.schema
            .get("required")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .filter(|key| *key != "kind")
    }

    /// Whether it is a table whose keys depend on its `kind`.
    pub(crate) fn is_tagged(self) -> bool {
        matches!(self.form(), Form::Tagged(_))
    }

    /// The `kind` that a tagged table has: its own, or that of the field's default.
    pub(crate) fn kind_of(self, table: Option<&Table>) -> Option<String> {
        let own = table.and_then(Table::kind);
        let default = || self.default?.get("kind")?.as_str();
        own.or_else(default).map(str::to_owned)
    }

    /// Whether two kinds are told by the same keys with the same meaning, so that what was said of one
    /// holds of the other: engines that simulate and compute the same scheduler.
    pub(crate) fn shares_keys(self, a: &str, b: &str) -> bool {
        let Form::Tagged(variants) = self.form() else {
            return false;
        };
        let keys = |kind: &str| {
            let variant = variants.iter().find(|v| v.kind == kind)?;
            let keys = variant.shape.keys().map(|(key, _)| key);
            Some(keys.filter(|k| *k != "kind").collect::<Vec<_>>())
        };
        // Elsewhere the same key of another kind may be another thing, such as a signal's target.
        self.is_engine() && keys(a).is_some() && keys(a) == keys(b)
    }

    /// Whether it says what a replica is.
    pub(crate) fn is_engine(self) -> bool {
        self.type_name() == Some("EngineSpec")
    }

    /// The shape one step down, as far as `kind`s are known from `table`; in a tagged table of
    /// another kind, the first kind that has the key.
    pub(crate) fn step(self, step: &Step, table: Option<&Table>) -> Option<Self> {
        match (self.form(), step) {
            (Form::Record, Step::Key(key)) => self.key(key),
            (Form::Map(values), Step::Key(_)) => Some(values),
            (Form::List(items), Step::Index(_)) => Some(items),
            (Form::Tagged(variants), Step::Key(key)) => {
                let kind = self.kind_of(table);
                let own = variants.iter().find(|v| Some(v.kind) == kind.as_deref());
                own.into_iter()
                    .chain(&variants)
                    .find_map(|v| v.shape.key(key))
            }
            _ => None,
        }
    }

    /// The words of an `enum` of this shape, for `kind` keys.
    pub(crate) fn tags(self) -> Vec<&'static str> {
        match self.form() {
            Form::Tagged(variants) => variants.iter().map(|v| v.kind).collect(),
            Form::Words(words) | Form::NumberOr(words) => words,
            _ => Vec::new(),
        }
    }

    /// How a value here is written, for messages.
    pub(crate) fn example(self, key: &str) -> String {
        let value = match self.form() {
            Form::Text(Some(format)) => format!("{:?}", quantity_example(format)),
            Form::Text(None) => "\"…\"".to_owned(),
            Form::Words(words) => format!("{:?}", words.first().unwrap_or(&"…")),
            Form::Integer(..) => "100".to_owned(),
            // Shares take it too, of which there are many.
            Form::Number | Form::NumberOr(_) => "0.5".to_owned(),
            Form::Bool => "true".to_owned(),
            Form::List(_) => "[…]".to_owned(),
            Form::Tagged(variants) => variants
                .first()
                .map_or_else(String::new, |v| v.shape.example_table(v.kind)),
            Form::Record => self.example_table(""),
            Form::Map(values) => format!("{{ {} }}", values.example("name")),
        };
        format!("{key} = {value}")
    }

    fn example_table(self, kind: &str) -> String {
        let kind = (!kind.is_empty()).then(|| format!("kind = {kind:?}"));
        let tagged = kind.is_some();
        let required = self
            .required()
            .filter_map(|key| Some(self.key(key)?.example(key)));
        let mut parts: Vec<_> = kind.into_iter().chain(required).collect();
        if parts.is_empty() && !tagged {
            // Nothing is required: any key shows the form.
            parts.extend(self.keys().next().map(|(key, shape)| shape.example(key)));
        }
        format!("{{ {} }}", parts.join(", "))
    }
}

fn words(schema: &'static Json) -> impl Iterator<Item = &'static str> {
    schema
        .get("enum")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
}

/// A well-written quantity of a format of the schema.
pub(crate) fn quantity_example(format: &str) -> &'static str {
    match format {
        "wt-duration" | "wt-auto-or-duration" => "250ms",
        "wt-bytes" => "24GiB",
        "wt-rate" => "8 req/s",
        "wt-bandwidth" => "900GB/s",
        "wt-compute" => "989TFLOPS",
        "wt-power" => "700W",
        "wt-hourly-price" => "$3.00/h",
        "wt-money" => "$0.01",
        _ => "…",
    }
}

/// Every place of the format that has a key of this name, kinds and lists left out of the path:
/// what to say when a key stands in the wrong table.
pub(crate) fn places_of_key(key: &str) -> Vec<String> {
    fn walk(shape: Shape, path: &mut Path, key: &str, found: &mut Vec<String>) {
        let records: Vec<Shape> = match shape.form() {
            Form::Record => vec![shape],
            Form::Tagged(variants) => variants.iter().map(|v| v.shape).collect(),
            _ => return,
        };
        for record in records {
            for (name, child) in record.keys() {
                path.push_key(name);
                if name == key {
                    found.push(path.to_string());
                }
                walk(child, path, key, found);
                path.pop();
            }
        }
    }
    let mut found = Vec::new();
    walk(Shape::root(), &mut Path::default(), key, &mut found);
    found.sort();
    found.dedup();
    found
}
