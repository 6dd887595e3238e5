//! A commented file to begin with, for `windtunnel scenario new`.

/// A scenario of this name that passes the check and says at each place what may be changed.
pub fn template(name: &str) -> String {
    // Names come from users; TOML's own printer knows what must be escaped.
    let name = toml::Value::String(name.to_owned());
    TEMPLATE.replace("{NAME}", &name.to_string())
}

const TEMPLATE: &str = include_str!("template.toml");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{LoadEnv, Source, load};

    #[test]
    fn passes_its_own_check_whatever_the_name() {
        for name in ["mine", "a \"quoted\" name", "line\nbreak", "{NAME}"] {
            let source = Source::Text {
                name: "new.toml".into(),
                text: template(name),
                dir: None,
            };
            let loaded =
                load(&source, &[], &LoadEnv::default()).unwrap_or_else(|r| panic!("{name}: {r}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            assert_eq!(loaded.name, name);
        }
    }
}
