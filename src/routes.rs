//! The ways out that a configuration names: its emitters, the routes to each, and the archives among them.

use std::sync::Arc;

use exfilwatch_config::Config;
use exfilwatch_emitters::{EmitterOptions, RouteOptions};
use exfilwatch_model::{Clock, Kind};
use exfilwatch_state::LaneId;
use uuid::Uuid;

use crate::cli::environment;
use crate::cli::failure::{Code, Failure};
use crate::pipeline::Route;
use crate::pipeline::filter::ItemFilter;
use crate::pipeline::job::KeptArchive;

/// Builds the emitters, and the routes to each: findings go by a connection of their own, so that nothing
/// stands before them.
pub fn build(config: &Config, clock: &Arc<dyn Clock>) -> Result<Vec<Route>, Failure> {
    let environment = exfilwatch_emitters::Environment::new(environment::variable);
    let mut routes = Vec::new();
    for emitter in &config.emitters {
        let options = &emitter.options;
        let name = format!("{}.{}", options.kind(), emitter.name);
        let unusable = |error: exfilwatch_emitters::BuildError| {
            let what = format!("emitter {name} ({})", emitter.origin);
            Failure::caused(Code::Usage, what, &error)
        };
        for (route, own) in &options.routes() {
            let terms = terms(options, own);
            let options = options.on_route(&name, route, own).map_err(unusable)?;
            let (first, others): (Vec<Kind>, Vec<Kind>) = options
                .send()
                .iter()
                .partition(|kind| options.mixes_kinds() && **kind == Kind::Findings);
            for kinds in [first, others] {
                if kinds.is_empty() {
                    continue;
                }
                let build = exfilwatch_emitters::registry::build;
                routes.push(Route {
                    name: route.clone(),
                    emitter: build(&name, &options, &environment, clock.clone())
                        .map_err(unusable)?,
                    kinds,
                    filter: ItemFilter::new(&[options.filter(), &own.filter]),
                    terms: terms.clone(),
                });
            }
        }
    }
    Ok(routes)
}

/// The archives, by the lanes that fill them.
pub fn archives(config: &Config) -> Vec<KeptArchive> {
    let mut archives = Vec::new();
    for emitter in &config.emitters {
        let options = &emitter.options;
        let EmitterOptions::Archive(archive) = options else {
            continue;
        };
        for (route, own) in options.routes() {
            archives.push(KeptArchive {
                folder: archive.folder.clone(),
                lane: LaneId {
                    emitter: format!("{}.{}", options.kind(), emitter.name),
                    route,
                    kind: Kind::Events,
                },
                filter: ItemFilter::new(&[options.filter(), &own.filter]),
            });
        }
    }
    archives
}

/// What a route takes and where to, where that is a place of ours; see [`Route::terms`].
fn terms(options: &EmitterOptions, own: &RouteOptions) -> String {
    let folder = match options {
        EmitterOptions::Archive(archive) => archive.folder.display().to_string(),
        _ => String::new(),
    };
    let terms = serde_json::to_string(&(folder, options.filter(), &own.filter));
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, terms.unwrap_or_default().as_bytes());
    digest.simple().to_string()
}
