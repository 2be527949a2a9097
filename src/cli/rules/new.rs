//! `rules new`: the skeleton of a rule file. It loads, its cases run, and they fail until it says what
//! it looks for.

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use exfilwatch_detectors::{PLACEHOLDER, SourceFile, lint};
use exfilwatch_model::Product;
use uuid::Uuid;

use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::print;

/// Which skeleton.
#[derive(Debug, clap::Args)]
pub(crate) struct NewArgs {
    /// Dotted name of the detection, such as corp.drive.archive_share.
    name: String,
    /// A rule that counts events in a window.
    #[arg(long)]
    window: bool,
    /// Whose records it looks at; from the name where it begins with gws. or o365.
    #[arg(long, value_enum)]
    product: Option<ProductArg>,
    /// Folder the file is written to; made where it is not there.
    #[arg(long, value_name = "DIR", default_value = ".")]
    rules: PathBuf,
}

/// A product, as the command line names it.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum ProductArg {
    M365,
    GoogleWorkspace,
}

/// Writes the file. One that is there stays.
pub(super) fn new(args: &NewArgs) -> Outcome {
    let name = &args.name;
    let is_sound = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    if !name.contains('.') || !name.split('.').all(is_sound) {
        let what = format!("{name:?} is no name of a detection");
        let help =
            "write small letters, digits and _ in parts joined by dots: corp.drive.archive_share";
        return Err(Failure::new(Code::Usage, what).help(help));
    }
    let product = match args.product {
        Some(ProductArg::M365) => Product::M365,
        Some(ProductArg::GoogleWorkspace) => Product::GoogleWorkspace,
        None if name.starts_with("gws.") => Product::GoogleWorkspace,
        None if name.starts_with("o365.") => Product::M365,
        None => {
            let what = format!("{name:?} does not say whose records it looks at");
            let help = "add --product m365 or --product google_workspace";
            return Err(Failure::new(Code::Usage, what).help(help));
        }
    };
    let text = skeleton(name, product, args.window);
    let path = args.rules.join(format!("{}.yml", name.replace('.', "_")));
    let failed = |error: std::io::Error| {
        let help = match error.kind() {
            ErrorKind::AlreadyExists => "a file that is there is left as it is: remove it first",
            _ => "the folder must be one that can be written to",
        };
        Failure::caused(Code::Usage, format!("writing {}", path.display()), &error).help(help)
    };
    std::fs::create_dir_all(&args.rules).map_err(failed)?;
    let mut file = std::fs::File::create_new(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let source = SourceFile {
        name: path.display().to_string(),
        text,
    };
    let left = match lint(&[source], &[]).len() {
        1 => "1 remark".to_owned(),
        many => format!("{many} remarks"),
    };
    let dir = args.rules.display();
    print(&format!(
        "wrote {}: {left} to work off\n\
         \n\
         Replace each {PLACEHOLDER}, put real records into the cases, then:\n\
         \x20 exfilwatch rules lint --rules {dir}\n\
         \x20 exfilwatch rules test --rules {dir} {name}\n",
        path.display()
    ))
}

/// The text of the file.
fn skeleton(name: &str, product: Product, is_window: bool) -> String {
    let (service, record, vary, time) = match product {
        Product::M365 => (
            "exchange",
            r#"{ CreationTime: "2026-05-04T08:00:00", Id: "1", Operation: Set-Mailbox, RecordType: 1, ResultStatus: "True", Workload: Exchange, UserId: alice@corp.example, ClientIP: 203.0.113.7, ObjectId: alice, Parameters: [{ Name: Identity, Value: alice }, { Name: ForwardingSmtpAddress, Value: "smtp:bob@customer.example" }] }"#,
            r#"{ /Id: "{i}" }"#,
            r#"{ pointer: /CreationTime, start: "2026-05-04T08:00:00", step_seconds: 60 }"#,
        ),
        Product::GoogleWorkspace => (
            "drive",
            r#"{ id: { time: "2026-05-04T08:00:00.000Z", uniqueQualifier: "1", applicationName: drive }, actor: { email: alice@corp.example }, ipAddress: 203.0.113.7, events: [{ name: change_user_access, parameters: [{ name: primary_event, boolValue: true }, { name: target_user, value: bob@customer.example }, { name: new_value, multiValue: [can_view] }, { name: doc_id, value: d }, { name: doc_title, value: Plan }] }] }"#,
            r#"{ /id/uniqueQualifier: "1{i}", /events/0/parameters/3/value: "doc-{i}" }"#,
            r#"{ pointer: /id/time, start: "2026-05-04T08:00:00.000Z", step_seconds: 60 }"#,
        ),
    };
    let parts = Parts {
        name,
        product: product.as_str(),
        service,
        record,
        vary,
        time,
    };
    if is_window {
        parts.window()
    } else {
        parts.single()
    }
}

/// What a skeleton is put together from.
struct Parts<'a> {
    name: &'a str,
    product: &'a str,
    service: &'a str,
    record: &'a str,
    vary: &'a str,
    time: &'a str,
}

impl Parts<'_> {
    fn single(&self) -> String {
        let Self { name, record, .. } = self;
        let (selection, texts) = (self.selection(), texts());
        format!(
            "title: {PLACEHOLDER} what happened, in a few words\n\
             id: {id}\n\
             name: {name}\n\
             status: experimental\n\
             description: {PLACEHOLDER} what it looks for, and why that matters.\n\
             tags: [attack.exfiltration, attack.ta0010, attack.t1567]\n\
             {selection}\
             {texts}\
             # Which records are one finding: here those of one actor and target on one day.\n\
             identity: {{ entity: actor, entity_type: user, fields: [actor, target], per: 24h }}\n\
             alert: true\n\
             message: \"{{actor}}: {{operation}}, {{target}}\"\n\
             distinct: [target]\n\
             tests:\n\
             \x20 - name: {PLACEHOLDER} what it must find\n\
             \x20   records:\n\
             \x20     - {record}\n\
             \x20   expect: {{ findings: 1, severity: medium, entity: alice@corp.example }}\n\
             \x20 - name: {PLACEHOLDER} what is near it and must not be found\n\
             \x20   records:\n\
             \x20     - {record}\n\
             \x20   expect: none\n",
            id = Uuid::new_v4(),
        )
    }

    fn window(&self) -> String {
        let Self {
            name,
            record,
            vary,
            time,
            ..
        } = self;
        let (selection, texts) = (self.selection(), texts());
        let repeat = |count: u32| {
            format!(
                "\x20   repeat:\n\
                 \x20     record: {record}\n\
                 \x20     count: {count}\n\
                 \x20     vary: {vary}\n\
                 \x20     vary_time: {time}\n"
            )
        };
        format!(
            "# Which events count. Without `alert` it raises nothing itself.\n\
             title: {PLACEHOLDER} one such event\n\
             id: {base}\n\
             name: {name}.base\n\
             status: experimental\n\
             {selection}\
             ---\n\
             title: {PLACEHOLDER} many such events, in a few words\n\
             id: {id}\n\
             name: {name}\n\
             status: experimental\n\
             description: {PLACEHOLDER} how many of what within which time, and why that matters.\n\
             tags: [attack.exfiltration, attack.ta0010, attack.t1567]\n\
             correlation:\n\
             \x20 type: event_count # or value_count, with condition: {{ field: object, gte: 10 }}\n\
             \x20 rules: [{name}.base]\n\
             \x20 group-by: [actor]\n\
             \x20 timespan: 1h\n\
             \x20 condition: {{ gte: 10 }}\n\
             {texts}\
             identity: {{ entity: actor, entity_type: user }}\n\
             message: \"{{actor}}: {{count}} times within {{window}}\"\n\
             distinct: [target]\n\
             tests:\n\
             \x20 - name: {PLACEHOLDER} as many as it takes\n\
             {enough}\
             \x20   expect: {{ findings: 1, severity: medium, entity: alice@corp.example, count: 10 }}\n\
             \x20 - name: {PLACEHOLDER} one less\n\
             {too_few}\
             \x20   expect: none\n",
            base = Uuid::new_v4(),
            id = Uuid::new_v4(),
            enough = repeat(10),
            too_few = repeat(9),
        )
    }

    fn selection(&self) -> String {
        let Self {
            product, service, ..
        } = self;
        format!(
            "logsource: {{ product: {product}, service: {service} }}\n\
             detection:\n\
             \x20 # Name operations here: then only their records are taken apart.\n\
             \x20 what: {{ operation: {PLACEHOLDER} }}\n\
             \x20 removal: {{ is_removal: true }}\n\
             \x20 condition: what and not removal\n"
        )
    }
}

/// What both forms say to the analyst.
fn texts() -> String {
    let checks: Vec<String> = (1..=5)
        .map(|number| format!("\x20   {number}. {PLACEHOLDER}?\n"))
        .collect();
    format!(
        "falsepositives:\n\
         \x20 - {PLACEHOLDER} when it is harmless\n\
         level: medium\n\
         triage: |\n\
         \x20 What happened: {PLACEHOLDER}.\n\
         \x20 Why it matters: {PLACEHOLDER}.\n\
         \x20 Check:\n\
         {}\
         \x20 Contain: {PLACEHOLDER}.\n",
        checks.concat()
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use exfilwatch_detectors::{RuleSet, cases};

    use super::*;
    use crate::cli::rules::test::read;

    /// The cases of a skeleton in which the placeholders of the selection are replaced.
    fn outcomes(text: String) -> Vec<cases::CaseOutcome> {
        let file = SourceFile {
            name: "new.yml".to_owned(),
            text,
        };
        let rules = RuleSet::from_files(&[file], &[], &[]).unwrap();
        cases::run(&Arc::new(rules), &mut read).unwrap()
    }

    #[test]
    fn a_skeleton_loads_and_its_first_case_says_what_is_to_be_filled_in() {
        for product in [Product::M365, Product::GoogleWorkspace] {
            for is_window in [false, true] {
                let outcomes = outcomes(skeleton("corp.a.b", product, is_window));
                assert_eq!(outcomes.len(), 2);
                let failure = outcomes[0].failure.as_ref().unwrap().to_string();
                assert!(failure.contains("findings: expected 1, got 0"), "{failure}");
                let operation = match product {
                    Product::M365 => "Set-Mailbox",
                    Product::GoogleWorkspace => "change_user_access",
                };
                for word in ["operation", operation, PLACEHOLDER] {
                    assert!(failure.contains(word), "{word}: {failure}");
                }
                assert!(outcomes[1].failure.is_none());
            }
        }
    }

    #[test]
    fn the_folder_is_made_and_a_file_that_is_there_stays() {
        let folder = std::env::temp_dir().join(format!("exfilwatch-new-{}", Uuid::new_v4()));
        let args = NewArgs {
            name: "corp.a.b".to_owned(),
            window: false,
            product: Some(ProductArg::M365),
            rules: folder.join("rules"),
        };
        new(&args).unwrap();
        let file = folder.join("rules/corp_a_b.yml");
        std::fs::write(&file, "mine").unwrap();
        let failure = new(&args).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.to_string().contains("corp_a_b.yml"), "{failure}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_filled_skeleton_finds_what_its_first_case_shows() {
        for (product, operation) in [
            (Product::M365, "Set-Mailbox"),
            (Product::GoogleWorkspace, "change_user_access"),
        ] {
            for is_window in [false, true] {
                let text = skeleton("corp.a.b", product, is_window);
                let text = text.replace(
                    &format!("what: {{ operation: {PLACEHOLDER} }}"),
                    &format!("what: {{ operation: {operation} }}"),
                );
                let outcomes = outcomes(text);
                assert!(outcomes[0].failure.is_none(), "{:?}", outcomes[0]);
            }
        }
    }
}
