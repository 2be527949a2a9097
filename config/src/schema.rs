//! JSON Schema of the configuration file, for editors and for `config schema`.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use exfilwatch_detectors::DetectorsOptions;

use crate::kinds::{CONNECTORS, EMITTERS, Kind};
use crate::options::{RunOptions, ServeOptions, StateOptions, Tenant};

/// JSON Schema (draft 2020-12) of the main file. Included files hold a part of it.
pub fn schema() -> Json {
    let mut generator = SchemaGenerator::default();
    let mut defaults = Map::new();
    let connectors = section(CONNECTORS, &mut generator, &mut defaults);
    let emitters = section(EMITTERS, &mut generator, &mut defaults);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "exfilwatch",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "include": {
                "description": "Files with more tenants and connectors, relative to this file; `*` \
                    may stand in the last part. A bad one disables its tenants only.",
                "type": "array",
                "items": { "type": "string" },
            },
            "defaults": closed(&defaults, "Laid under each table of the kind."),
            "tenants": named(Tenant::json_schema(&mut generator)),
            "connectors": connectors,
            "emitters": emitters,
            "detectors": DetectorsOptions::json_schema(&mut generator),
            "state": StateOptions::json_schema(&mut generator),
            "serve": ServeOptions::json_schema(&mut generator),
            "run": RunOptions::json_schema(&mut generator),
        },
    });
    let definitions = Json::Object(generator.take_definitions(true));
    if let Some(members) = schema.as_object_mut() {
        members.insert("$defs".to_owned(), definitions);
    }
    schema
}

/// A section of kinds; adds each kind's table of defaults.
fn section<T>(
    kinds: &[Kind<T>],
    generator: &mut SchemaGenerator,
    defaults: &mut Map<String, Json>,
) -> Json {
    let mut tables = Map::new();
    for kind in kinds {
        let mut part = (kind.schema)(generator);
        tables.insert(kind.name.to_owned(), named(part.clone()));
        // Defaults need not be complete, and every table still names its own tenant.
        part.remove("required");
        defaults.insert(kind.name.to_owned(), part.to_value());
    }
    closed(&tables, "The kind is the table name.")
}

/// Tables of one kind by name. What is required may come from the defaults, so that an editor must
/// not ask for it.
fn named(mut table: Schema) -> Json {
    table.remove("required");
    json!({ "type": "object", "additionalProperties": table.to_value() })
}

fn closed(properties: &Map<String, Json>, description: &str) -> Json {
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}
