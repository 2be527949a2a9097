//! The world is the same for the same seed, its records are whole, and its sheet is consistent.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use exfilwatch_simulator::sheet::DETECTIONS;
use exfilwatch_simulator::world::SCRIPTS;
use exfilwatch_simulator::{AttackPlan, Delivery, SeenFinding, TenantOptions, World, WorldOptions};
use serde_json::Value;

fn world(seed: u64) -> World {
    World::invent(support::options(seed))
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_gives_others() {
    let bodies = |seed| {
        let world = world(seed);
        let sheet = world.sheet();
        let records: Vec<_> = sheet
            .records
            .iter()
            .map(|r| {
                (
                    r.id.clone(),
                    r.body.clone(),
                    r.visible_from_ms,
                    r.listable_until_ms,
                )
            })
            .collect();
        (records, sheet.due.clone())
    };
    assert_eq!(bodies(5), bodies(5));
    assert_ne!(bodies(5).0, bodies(6).0);
}

#[test]
fn every_record_is_json_with_the_identity_and_time_of_its_sheet_row() {
    for record in &world(1).sheet().records {
        let body: Value = serde_json::from_slice(&record.body).expect("JSON");
        if record.stream.starts_with("office365/") {
            assert_eq!(body["Id"], record.id.as_str());
            let time = body["CreationTime"].as_str().unwrap();
            assert!(!time.ends_with('Z') && time.len() == 19, "{time}");
            let time = support::time(&format!("{time}Z")).timestamp();
            assert_eq!(time, record.event_ms.div_euclid(1000));
        } else {
            let id = |name: &str| body["id"][name].as_str().unwrap().to_owned();
            let whole = format!(
                "{}/{}/{}",
                id("time"),
                id("uniqueQualifier"),
                id("applicationName")
            );
            assert_eq!(whole, record.id);
            assert_eq!(
                support::time(&id("time")).timestamp_millis(),
                record.event_ms
            );
            assert_eq!(body["events"].as_array().unwrap().len(), record.elements);
            id("uniqueQualifier")
                .parse::<i64>()
                .expect("a signed number");
        }
        assert!(record.visible_from_ms >= record.event_ms);
        assert!(record.listable_until_ms > record.visible_from_ms);
    }
}

#[test]
fn ordinary_life_has_the_oddities_of_the_real_logs() {
    let world = world(2);
    let records = &world.sheet().records;
    let of = |stream: &str| {
        records
            .iter()
            .filter(|r| &*r.stream == stream)
            .collect::<Vec<_>>()
    };
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    assert!(
        of("office365/Audit.SharePoint")
            .iter()
            .all(|r| text(&r.body).contains("https:\\/\\/"))
    );
    let exchange = of("office365/Audit.Exchange");
    let by_system = exchange
        .iter()
        .filter(|r| text(&r.body).contains("NT AUTHORITY"));
    assert!(
        by_system.count() * 3 > exchange.len(),
        "most admin records are the service's own"
    );
    let logins = of("google_workspace/login");
    let ids: BTreeSet<&str> = logins.iter().map(|r| r.id.as_str()).collect();
    assert!(
        ids.len() < logins.len(),
        "identities of logins are not unique"
    );
    assert!(of("google_workspace/drive").iter().any(|r| r.elements > 1));
    assert!(
        of("google_workspace/drive")
            .iter()
            .any(|r| r.id.contains("/-")),
        "negative qualifier"
    );
    let drive = of("google_workspace/drive");
    assert!(drive.iter().any(|r| !text(&r.body).contains("ipAddress")));
    for stream in [
        "office365/Audit.AzureActiveDirectory",
        "office365/Audit.General",
        "office365/DLP.All",
        "google_workspace/admin",
        "google_workspace/token",
        "google_workspace/user_accounts",
        "google_workspace/groups",
        "google_workspace/groups_enterprise",
        "google_workspace/calendar",
        "google_workspace/rules",
    ] {
        assert!(!of(stream).is_empty(), "no records in {stream}");
    }
}

#[test]
fn every_script_has_run_and_every_detection_is_due() {
    let world = world(3);
    let due = &world.sheet().due;
    let scripts: BTreeSet<&str> = due.iter().map(|due| due.script.as_str()).collect();
    for script in SCRIPTS {
        assert!(scripts.contains(script), "{script}");
    }
    let detections: BTreeSet<&str> = due.iter().map(|due| due.detection.as_str()).collect();
    assert_eq!(detections, BTreeSet::from(DETECTIONS));
}

#[test]
fn due_findings_name_records_of_their_tenant_and_span() {
    let world = world(4);
    let sheet = world.sheet();
    let times: BTreeMap<&str, i64> = sheet
        .records
        .iter()
        .map(|r| (r.id.as_str(), r.event_ms))
        .collect();
    for due in &sheet.due {
        assert!(!due.event_ids.is_empty());
        let at: Vec<i64> = due.event_ids.iter().map(|id| times[id.as_str()]).collect();
        assert_eq!(due.first_ms, *at.iter().min().unwrap(), "{due:?}");
        assert_eq!(due.last_ms, *at.iter().max().unwrap(), "{due:?}");
        let day = |at: i64| at.div_euclid(86_400_000);
        assert!(
            due.ids_max == 1 || day(due.first_ms) != day(due.last_ms),
            "{due:?}"
        );
    }
    for (_, _, id) in &sheet.tolerated {
        assert!(times.contains_key(id.as_str()));
    }
}

#[test]
fn bursts_have_the_numbers_their_detections_ask_for() {
    let world = world(6);
    let hour = 3_600_000;
    for due in &world.sheet().due {
        let (least, span) = match due.detection.as_str() {
            "gws.drive.mass_share_external" if due.ids_max == 2 => (40, hour),
            "gws.drive.mass_share_external" | "o365.sharepoint.mass_share_external" => (20, hour),
            "o365.mail.forwarding_user_multi" | "o365.mail.forwarding_admin_multi" => (2, hour),
            _ => continue,
        };
        assert!(due.event_ids.len() >= least, "{due:?}");
        assert!(due.last_ms - due.first_ms < span, "{due:?}");
    }
    let fan_out = world
        .sheet()
        .due
        .iter()
        .find(|d| d.detection == "gws.drive.suspicious_sharing");
    let ids = &fan_out.unwrap().event_ids;
    let mut targets = BTreeSet::new();
    for record in world.sheet().records.iter().filter(|r| ids.contains(&r.id)) {
        let body: Value = serde_json::from_slice(&record.body).unwrap();
        for parameter in body["events"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|e| e["parameters"].as_array().unwrap().iter())
        {
            if parameter["name"] == "target_user" {
                targets.insert(parameter["value"].as_str().unwrap().to_owned());
            }
        }
    }
    assert!(targets.len() > 50, "{}", targets.len());
}

#[test]
fn ordinary_life_alone_holds_no_burst_whatever_the_volume() {
    let mut options = WorldOptions {
        attacks: AttackPlan::Quiet,
        ..support::options(8)
    };
    options.records_per_day = 20_000;
    let world = World::invent(options);
    let quiet = [
        "gws.drive.external_share",
        "o365.mail.inbox_rule_forwarding",
        "o365.mail.mailbox_forwarding_enabled",
        "o365.mail.transport_rule_forwarding",
    ];
    for due in &world.sheet().due {
        assert!(quiet.contains(&due.detection.as_str()), "{due:?}");
        assert!(due.event_ids.len() < 20, "{due:?}");
    }
}

#[test]
fn nobody_shares_with_partners_of_the_own_domain() {
    for domain in ["fabrikam.example", "example"] {
        let mut options = support::options(13);
        options.tenants = vec![TenantOptions {
            domain: domain.into(),
            ..TenantOptions::new("own")
        }];
        let world = World::invent(options);
        let sheet = world.sheet();
        let below = format!(".{domain}");
        let outside = sheet
            .due
            .iter()
            .filter(|due| !due.external_domain.is_empty());
        assert!(outside.clone().count() > 0);
        for due in outside {
            let to = &due.external_domain;
            assert!(to != domain && !to.ends_with(&below), "{due:?}");
        }
    }
}

#[test]
fn nobody_shares_enough_documents_for_a_finding_in_ordinary_life() {
    let mut options = WorldOptions {
        attacks: AttackPlan::Quiet,
        ..support::options(14)
    };
    options.records_per_day = 20_000;
    let world = World::invent(options);
    let mut days: BTreeMap<(String, i64), BTreeSet<&str>> = BTreeMap::new();
    for due in &world.sheet().due {
        if due.detection == "gws.drive.external_share" {
            let actor = due.entity.split(" -> ").next().unwrap().to_owned();
            let day = due.first_ms.div_euclid(86_400_000);
            let ids = due.event_ids.iter().map(String::as_str);
            days.entry((actor, day)).or_default().extend(ids);
        }
    }
    assert!(days.values().any(|ids| ids.len() == 2));
    for ((actor, day), ids) in &days {
        let next = days.get(&(actor.clone(), day + 1));
        assert!(ids.len() + next.map_or(0, BTreeSet::len) < 5, "{actor}");
    }
}

#[test]
fn prompt_delivery_is_short_and_stepped_attacks_begin_when_told() {
    let mut options = support::options(9);
    options.delivery = Delivery::prompt();
    let first = options.from + TimeDelta::hours(3);
    options.attacks = AttackPlan::Stepped {
        first,
        step: TimeDelta::minutes(1),
    };
    let world = World::invent(options);
    for record in &world.sheet().records {
        assert!(
            record.visible_from_ms - record.event_ms < 120_000,
            "{record:?}"
        );
    }
    let attack = world
        .sheet()
        .due
        .iter()
        .filter(|due| due.script == SCRIPTS[0]);
    assert!(attack.clone().count() > 0);
    for due in attack {
        assert_eq!(due.first_ms, first.timestamp_millis());
    }
}

#[test]
fn a_tenant_of_one_cloud_has_no_records_of_the_other() {
    let mut options = support::options(10);
    options.tenants = vec![
        TenantOptions {
            google: false,
            ..TenantOptions::new("contoso")
        },
        TenantOptions {
            office365: false,
            ..TenantOptions::new("adatum")
        },
    ];
    let world = World::invent(options);
    for record in &world.sheet().records {
        let microsoft = record.stream.starts_with("office365/");
        assert_eq!(microsoft, &*record.tenant == "contoso", "{}", record.stream);
    }
    assert!(world.records("contoso", "office365/Audit.Exchange").count() > 0);
    assert!(world.records("adatum", "google_workspace/drive").count() > 0);
}

#[test]
fn a_perfect_detector_is_judged_perfect() {
    let world = world(12);
    let sheet = world.sheet();
    let seen: Vec<SeenFinding> = sheet
        .due
        .iter()
        .enumerate()
        .map(|(number, due)| SeenFinding {
            detection: due.detection.clone(),
            tenant: due.tenant.clone(),
            uid: number.to_string(),
            entity: due.keyed_on.clone(),
            counted: due.counted,
            external_domain: due.external_domain.clone(),
            event_ids: due.event_ids.clone(),
        })
        .collect();
    let verdict = sheet.judge(&seen);
    assert_eq!(verdict.missing, []);
    assert_eq!(verdict.split, []);
    assert_eq!(verdict.unexpected, []);
    assert_eq!(verdict.met.len(), sheet.due.len());
}
