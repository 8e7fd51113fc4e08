//! A record's JSON as containerd wrote it, field by field: what is not changed stays as it is to the byte, also fields that a
//! newer containerd added and that suture knows nothing of.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The fields in their order, each value as its text.
#[derive(Debug)]
pub(super) struct RecordText(Vec<(String, Box<RawValue>)>);

impl RecordText {
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Sets a field, at its place or at the end.
    pub(super) fn set(
        &mut self,
        field: &str,
        value: &impl serde::Serialize,
    ) -> Result<(), serde_json::Error> {
        let value = serde_json::value::to_raw_value(value)?;
        match self.0.iter_mut().find(|(name, _)| name == field) {
            Some((_, old)) => *old = value,
            None => self.0.push((field.to_owned(), value)),
        }
        Ok(())
    }

    pub(super) fn into_bytes(self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = String::from("{");
        for (place, (name, value)) in self.0.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            text.push_str(&serde_json::to_string(name)?);
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        Ok(text.into_bytes())
    }
}

impl<'de> Deserialize<'de> for RecordText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RecordText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record of containerd's, which is a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RecordText, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // Go takes the last of two, and any spelling of a name: which one counts must not be guessed.
                    if fields.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                        return Err(A::Error::custom(format!("the field `{name}` is there twice")));
                    }
                    fields.push((name, value));
                }
                Ok(RecordText(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DeviceState;

    fn marked(json: &str) -> String {
        let mut record = RecordText::parse(json.as_bytes()).unwrap();
        record.set("state", &DeviceState::Faulty).unwrap();
        String::from_utf8(record.into_bytes().unwrap()).unwrap()
    }

    #[test]
    fn what_is_not_changed_stays_to_the_byte() {
        let before = r#"{"device_id":2,"size":18446744073709551615,"name":"tp-snap-2","later":{"b":1.50,"a":[ 1, 2]},"state":4,"error":"\u00e9"}"#;
        assert_eq!(marked(before), before.replace("\"state\":4", "\"state\":13"));
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        for bad in [
            r#"{"state":4,"state":5}"#,
            r#"{"state":4,"State":5}"#,
            "[]",
            "4",
            "{",
        ] {
            assert!(RecordText::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
