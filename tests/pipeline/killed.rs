//! A process that is killed between any two steps of its commits while a tenant is parted from its lane and
//! goes back: the next one goes on without a human, also where the last frame is torn.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use exfilwatch_state::StateStore;

use super::*;

/// Commits of the scene that may be the last; there are more or less of them, as they come together.
const NTH_MAX: u64 = 8;
const TENANTS: [&str; 2] = ["contoso", "fabrikam"];
const RECORDS: u32 = 20;

/// Writes down what it takes, so that it outlives the process. Refuses a tenant while told.
#[derive(Debug)]
struct Keeper {
    file: PathBuf,
    holds: Mutex<Option<&'static str>>,
}

impl Keeper {
    fn new(folder: &Path) -> Arc<Self> {
        Arc::new(Self {
            file: folder.join("taken"),
            holds: Mutex::new(Some("fabrikam")),
        })
    }

    fn heal(&self) {
        *self.holds.lock().unwrap() = None;
    }

    /// How often each item came, whatever the process.
    fn taken(&self) -> BTreeMap<String, usize> {
        let mut taken = BTreeMap::new();
        for line in fs::read_to_string(&self.file).unwrap_or_default().lines() {
            *taken.entry(line.to_owned()).or_default() += 1;
        }
        taken
    }

    fn count(&self, tenant: &str) -> usize {
        let taken = self.taken();
        taken.keys().filter(|line| line.starts_with(tenant)).count()
    }
}

#[async_trait]
impl Emitter for Keeper {
    fn name(&self) -> &'static str {
        "test.keeper"
    }

    fn batch_max(&self) -> (usize, usize) {
        (4, 1 << 20)
    }

    async fn emit(&self, batch: &[Envelope]) -> Result<Delivered, EmitError> {
        let holds = *self.holds.lock().unwrap();
        let (mut delivered, mut lines) = (Delivered::default(), String::new());
        for (index, item) in batch.iter().enumerate() {
            let tenant = item.stream.tenant().as_str();
            if holds == Some(tenant) {
                delivered.held.push(HeldItem {
                    index,
                    what: "no such index".into(),
                    help: "make it".into(),
                });
            } else {
                let payload = String::from_utf8_lossy(&item.payload);
                lines.push_str(&format!("{tenant} {} {payload}\n", item.id));
            }
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.file);
        file.unwrap().write_all(lines.as_bytes()).unwrap();
        Ok(delivered)
    }
}

fn route(keeper: &Arc<Keeper>) -> Vec<Route> {
    vec![Route::all(keeper.clone(), vec![Kind::Events])]
}

/// Two tenants, of which one is parted; it goes back, and more comes. Each commit is noted beside it.
async fn scene(folder: &Path, steps: Steps) {
    let keeper = Keeper::new(folder);
    let pipeline = start_routes(open(&folder.join("state"), steps), route(&keeper));
    let mut noted = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("committed"))
        .unwrap();
    for half in [0..RECORDS / 2, RECORDS / 2..RECORDS] {
        for tenant in TENANTS {
            records(&pipeline, tenant, half.clone()).await;
            // In one write: the death may come at any time.
            let ids = half
                .clone()
                .map(|number| format!("{tenant} {number:012}\n"));
            noted.write_all(ids.collect::<String>().as_bytes()).unwrap();
        }
        eventually("contoso flows", || {
            keeper.count("contoso") == half.end as usize
        })
        .await;
        keeper.heal();
    }
    finish(pipeline).await;
}

/// Started by the test below, and killed on the way.
#[tokio::test]
#[ignore = "part of another test"]
async fn child_that_is_killed() {
    let order: Vec<String> = std::io::stdin()
        .lock()
        .lines()
        .map(Result::unwrap)
        .collect();
    let [step, nth, folder] = &order[..] else {
        panic!("{order:?}")
    };
    let step = Step::from_name(step).unwrap();
    let steps = Steps::abort_at(step, nth.parse().unwrap());
    scene(Path::new(folder), steps).await;
}

/// Whether it was killed.
fn killed(folder: &Path, step: Step, nth: u64) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "killed::child_that_is_killed"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let order = format!("{}\n{nth}\n{}\n", step.as_str(), folder.display());
    let mut input = child.stdin.take().unwrap();
    input.write_all(order.as_bytes()).unwrap();
    drop(input);
    let status = child.wait().unwrap();
    assert!(status.success() || status.code().is_none(), "{status}");
    !status.success()
}

/// A frame that was begun behind the last one: the head of the first, as far as it was written.
fn tear(state: &Path) {
    // The very first commit may die before there is a folder.
    let segments = fs::read_dir(state.join("outbox")).into_iter().flatten();
    let mut segments: Vec<PathBuf> = segments.map(|segment| segment.unwrap().path()).collect();
    segments.sort();
    let Some(last) = segments.last() else {
        return;
    };
    let bytes = fs::read(last).unwrap();
    let begun = bytes.get(16..60).unwrap_or_default();
    let mut file = OpenOptions::new().append(true).open(last).unwrap();
    file.write_all(begun).unwrap();
}

#[tokio::test]
async fn killed_at_any_commit_while_a_tenant_is_parted_the_next_process_goes_on_and_loses_nothing()
{
    let (mut deaths, mut parted, mut repeats) = (0, 0, 0);
    for step in Step::ALL {
        for nth in 1..=NTH_MAX {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let about = format!("{step:?}, {nth}");
            deaths += usize::from(killed(folder, step, nth));
            let state = folder.join("state");
            tear(&state);
            // The receiver still refuses the tenant, then takes it.
            let keeper = Keeper::new(folder);
            let pipeline = start_routes(open(&state, Steps::default()), route(&keeper));
            let is_parted = |pipeline: &Pipeline| {
                let lanes = pipeline.shared().watch.copy().lanes;
                lanes.keys().any(|lane| lane.route == "all@fabrikam")
            };
            parted += usize::from(is_parted(&pipeline));
            records(&pipeline, "contoso", RECORDS..RECORDS + 1).await;
            let after = format!("contoso {RECORDS:012}");
            let has = |id: &str| keeper.taken().keys().any(|line| line.starts_with(id));
            eventually(&about, || has(&after)).await;
            keeper.heal();
            eventually(&about, || !is_parted(&pipeline)).await;
            finish(pipeline).await;
            let taken = keeper.taken();
            let committed = fs::read_to_string(folder.join("committed")).unwrap_or_default();
            for id in committed.lines() {
                let of = taken.iter().filter(|(line, _)| line.starts_with(id));
                let times: Vec<usize> = of.map(|(_, times)| *times).collect();
                // A repeat is the same bytes. The death makes one at most, and what is under way of the tenant
                // itself when it is parted, in either process, one more each.
                let most = if id.starts_with("fabrikam") { 4 } else { 2 };
                let [count] = times[..] else {
                    panic!("{about}: {id} {times:?}");
                };
                assert!(
                    (1..=most).contains(&count),
                    "{about}: {id} came {count} times"
                );
                repeats += count - 1;
            }
            let marks = open(&state, Steps::default()).store().lanes().unwrap();
            let mut left = marks.iter().filter(|mark| !mark.retired);
            assert!(
                left.all(|mark| mark.lane.route == "all"),
                "{about}: {marks:?}"
            );
        }
    }
    println!("{deaths} deaths, {parted} with the tenant parted; {repeats} repeats");
    // How many of them find the tenant parted is the scheduler's to say.
    assert!(
        deaths > 30,
        "{deaths} deaths, {parted} with the tenant parted"
    );
}
