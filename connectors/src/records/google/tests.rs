use exfilwatch_model::Value as Field;
use serde_json::{Value, json};

use super::*;

fn activity(application: &str, events: &Value) -> Value {
    json!({
        "kind": "admin#reports#activity",
        "id": {"time": "2026-05-04T08:00:00.123Z", "uniqueQualifier": "-42", "applicationName": application},
        "etag": "\"x\"", "actor": {"email": "Alice@contoso.example", "profileId": "1"},
        "ipAddress": "203.0.113.9", "events": events,
    })
}

fn read_with(domains: Domains, record: &Value) -> Vec<Event> {
    let record = RawRecord::new(record.to_string().into());
    let reader = GoogleRecords::new(Arc::new(domains));
    reader.normalise(&record, DateTime::UNIX_EPOCH).unwrap()
}

fn read(record: &Value) -> Vec<Event> {
    read_with(Domains::new(&["contoso.example"], &[]), record)
}

/// A drive event of parameters given as name and value (a list gives a `multiValue`).
fn drive(name: &str, parameters: &[(&str, Value)]) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|(name, value)| match value {
            Value::Array(_) => json!({"name": name, "multiValue": value}),
            Value::Bool(_) => json!({"name": name, "boolValue": value}),
            _ => json!({"name": name, "value": value}),
        })
        .collect();
    json!({"type": "acl_change", "name": name, "parameters": parameters})
}

fn share(target: &str, new: &str) -> Value {
    drive(
        "change_user_access",
        &[
            ("primary_event", json!(true)),
            ("visibility_change", json!("external")),
            ("target_user", json!(target)),
            ("old_value", json!(["none"])),
            ("new_value", json!([new])),
            ("doc_id", json!("d1")),
            ("doc_title", json!("plan")),
            ("owner", json!("alice@contoso.example")),
            ("visibility", json!("shared_externally")),
            ("old_visibility", json!("private")),
        ],
    )
}

#[test]
fn a_head_has_all_operations_and_leaves_the_etag_out_of_the_digest() {
    let mut record = activity(
        "drive",
        &json!([share("a@b.example", "can_view"), {"name": "edit"}]),
    );
    let reader = GoogleRecords::new(Arc::default());
    let raw = RawRecord::new(record.to_string().into());
    let head = reader.head(&raw).unwrap();
    assert_eq!(
        head.id.as_deref(),
        Some("2026-05-04T08:00:00.123Z/-42/drive")
    );
    assert_eq!(head.operations, ["change_user_access", "edit"]);
    assert_eq!(head.actor.as_deref(), Some("Alice@contoso.example"));
    assert_eq!(head.time, Some("2026-05-04T08:00:00.123Z".parse().unwrap()));
    assert_eq!(reader.operations(&raw).unwrap(), head.operations);
    record["etag"] = json!("other");
    let other = RawRecord::new(record.to_string().into());
    assert_eq!(reader.head(&other).unwrap().digest, head.digest);
    record["ipAddress"] = json!("203.0.113.10");
    let other = RawRecord::new(record.to_string().into());
    assert_ne!(reader.head(&other).unwrap().digest, head.digest);
}

#[test]
fn an_identity_that_lacks_a_part_is_none_and_a_number_is_taken_as_qualifier() {
    let reader = GoogleRecords::new(Arc::default());
    for (id, expected) in [
        (
            json!({"time": "t", "uniqueQualifier": -7, "applicationName": "drive"}),
            Some("t/-7/drive"),
        ),
        (
            json!({"time": "t", "uniqQualifier": "7", "applicationName": "drive"}),
            Some("t/7/drive"),
        ),
        (
            json!({"uniqueQualifier": "7", "applicationName": "drive"}),
            None,
        ),
        (json!("odd"), None),
    ] {
        let raw = RawRecord::new(json!({ "id": id }).to_string().into());
        assert_eq!(reader.head(&raw).unwrap().id.as_deref(), expected, "{id}");
        assert_eq!(
            reader.normalise(&raw, DateTime::UNIX_EPOCH).unwrap().len(),
            1
        );
    }
}

#[test]
fn google_repeated_parameter_keeps_all_values_of_every_kind_and_lists_those_of_one_name() {
    let events = read(&activity(
        "rules",
        &json!([{"name": "rule_match", "type": "t", "parameters": [
            {"name": "a", "value": "1"}, {"name": "a", "value": "2"}, {"name": "n", "intValue": "17"},
            {"name": "m", "multiIntValue": ["1", "2"]}, {"name": "b", "boolValue": true},
            {"name": "x", "messageValue": {"parameter": [{"name": "y", "value": "z"}]}},
            {"name": "l", "multiMessageValue": [
                {"parameter": [{"name": "k", "value": "1"}]}, {"parameter": [{"name": "k", "value": "2"}]}]},
            {"name": "rule_name", "value": "cards"}, {"name": "odd"}, {"value": "nameless"}, 7,
        ]}]),
    ));
    let event = &events[0];
    let both = |a: Field, b: Field| Field::List(vec![a, b]);
    assert_eq!(
        event.get("parameters.a"),
        Some(&both("1".into(), "2".into()))
    );
    assert_eq!(event.get("parameters.n"), Some(&Field::Int(17)));
    assert_eq!(event.get("parameters.m"), Some(&both(1.into(), 2.into())));
    assert!(event.is("parameters.b"));
    assert_eq!(event.text("parameters.x.y").as_deref(), Some("z"));
    assert_eq!(
        event.get("parameters.l.k"),
        Some(&both("1".into(), "2".into()))
    );
    assert_eq!(event.text(field::RULE_NAME).as_deref(), Some("cards"));
    assert_eq!(event.text("event.type").as_deref(), Some("t"));
}

#[test]
fn a_share_tells_person_role_document_and_side() {
    let people = ["x@gmail.com", "bob@contoso.example"];
    let events: Vec<Value> = people
        .iter()
        .map(|person| share(person, "can_edit"))
        .collect();
    let events = read(&activity("drive", &json!(events)));
    assert_eq!(events.len(), 2);
    let outside = &events[0];
    for (name, value) in [
        (field::OPERATION, "change_user_access"),
        (field::ACTOR, "alice@contoso.example"),
        (field::ACTOR_DOMAIN, "contoso.example"),
        (field::TARGET, "x@gmail.com"),
        (field::ROLE, "can_edit"),
        (field::OBJECT, "d1"),
        (field::OBJECT_NAME, "plan"),
        (field::EXTERNAL_DOMAIN, "gmail.com"),
        (field::EXTERNAL_CLASS, "free_mail"),
        (field::OWNER, "alice@contoso.example"),
        (field::ITEM, "2026-05-04T08:00:00.123Z/-42"),
        (field::SOURCE_IP, "203.0.113.9"),
        (field::URL, "https://drive.google.com/open?id=d1"),
    ] {
        assert_eq!(outside.text(name).as_deref(), Some(value), "{name}");
    }
    for name in [
        field::IS_EXTERNAL,
        field::IS_PRIMARY,
        field::VISIBILITY_RAISED,
        field::OWNER_IS_INTERNAL,
    ] {
        assert!(outside.is(name), "{name}");
    }
    assert!(!outside.is(field::IS_REMOVAL) && !outside.is(field::IS_RECONCILED));
    assert!(!events[1].is(field::IS_EXTERNAL) && !events[1].is(field::VISIBILITY_RAISED));
    assert_ne!(events[0].part, events[1].part);
}

#[test]
fn events_of_two_activities_with_one_identity_are_told_apart() {
    let one = read(&activity("login", &json!([{"name": "login_success"}])));
    let two = read(&activity("login", &json!([{"name": "login_verification"}])));
    assert_eq!(one[0].record_id, two[0].record_id);
    assert_ne!(one[0].part, two[0].part);
}

#[test]
fn taking_access_away_and_the_creators_own_grant_are_no_shares() {
    let events = read(&activity("drive", &json!([share("x@gmail.com", "none")])));
    assert!(events[0].is(field::IS_REMOVAL) && !events[0].is(field::VISIBILITY_RAISED));
    let grant = drive(
        "change_user_access",
        &[
            ("primary_event", json!(false)),
            ("visibility_change", json!("none")),
            ("target_user", json!("alice@contoso.example")),
            ("old_value", json!(["none"])),
            ("new_value", json!(["owner"])),
            ("old_visibility", json!("unknown")),
            ("visibility", json!("private")),
        ],
    );
    let events = read(&activity("drive", &json!([grant])));
    assert!(!events[0].is(field::IS_PRIMARY) && !events[0].is(field::IS_EXTERNAL));
}

#[test]
fn visibility_is_raised_only_by_what_opens_a_document_to_the_outside() {
    let change = |name: &str, new: &str, old: &str, domain: &str, change: Option<&str>| {
        let mut parameters = vec![
            ("new_value", json!([new])),
            ("old_value", json!([old])),
            ("visibility", json!(new)),
        ];
        parameters.extend((!domain.is_empty()).then(|| ("target_domain", json!(domain))));
        parameters.extend(change.map(|change| ("visibility_change", json!(change))));
        let event = read(&activity("drive", &json!([drive(name, &parameters)]))).remove(0);
        let external = event.is(field::IS_EXTERNAL);
        (
            event.is(field::VISIBILITY_RAISED),
            external,
            event.is(field::IS_REMOVAL),
        )
    };
    let visibility = "change_document_visibility";
    for (new, old, domain, says, expected) in [
        (
            "people_with_link",
            "private",
            "all",
            Some("external"),
            (true, true, false),
        ),
        (
            "public_on_the_web",
            "people_with_link",
            "all",
            None,
            (true, true, false),
        ),
        (
            "people_with_link",
            "public_on_the_web",
            "all",
            None,
            (false, true, true),
        ),
        (
            "private",
            "people_with_link",
            "all",
            Some("external"),
            (false, true, true),
        ),
        (
            "people_within_domain_with_link",
            "private",
            "contoso.example",
            Some("internal"),
            (false, false, false),
        ),
        (
            "people_within_domain_with_link",
            "private",
            "other.example",
            Some("external"),
            (true, true, false),
        ),
        ("people_with_link", "private", "", None, (true, true, false)),
        (
            "people_with_link",
            "private",
            "contoso.example",
            Some("external"),
            (false, false, false),
        ),
    ] {
        assert_eq!(
            change(visibility, new, old, domain, says),
            expected,
            "{old} -> {new} {domain}"
        );
    }
}

#[test]
fn a_document_put_on_the_web_is_open_to_anyone_whoever_it_is_shared_with() {
    let publish = |new: &str, old: &str| {
        let event = drive(
            "publish_change",
            &[
                ("new_publish_visibility", json!(new)),
                ("old_publish_visibility", json!(old)),
                ("visibility", json!("private")),
                ("visibility_change", json!("none")),
                ("doc_id", json!("d1")),
            ],
        );
        read(&activity("drive", &json!([event]))).remove(0)
    };
    let event = publish("public_on_the_web", "nobody");
    assert!(event.is(field::VISIBILITY_RAISED) && event.is(field::IS_EXTERNAL));
    assert_eq!(event.text(field::EXTERNAL_CLASS).as_deref(), Some("anyone"));
    assert!(!event.is(field::IS_REMOVAL));
    for (new, old) in [
        ("public_in_the_domain", "nobody"),
        ("unchanged", "unchanged"),
        ("nobody", "public_on_the_web"),
    ] {
        let event = publish(new, old);
        assert!(!event.is(field::VISIBILITY_RAISED), "{new}");
        assert!(!event.is(field::IS_EXTERNAL), "{new}");
    }
    assert!(publish("nobody", "public_on_the_web").is(field::IS_REMOVAL));
}

#[test]
fn without_known_domains_the_vendors_word_is_believed() {
    let event = drive(
        "change_document_visibility",
        &[
            ("visibility_change", json!("external")),
            ("target_domain", json!("contoso.example")),
            ("visibility", json!("people_within_domain_with_link")),
            ("new_value", json!(["people_with_link"])),
        ],
    );
    let record = activity("drive", &json!([event]));
    let guess = read_with(Domains::default(), &record);
    assert!(guess[0].is(field::VISIBILITY_RAISED) && guess[0].is(field::IS_EXTERNAL));
    assert!(!read(&record)[0].is(field::VISIBILITY_RAISED));
}

#[test]
fn a_shared_drives_owner_is_a_name_and_its_members_are_targets() {
    let events = read(&activity(
        "drive",
        &json!([drive(
            "shared_drive_membership_change",
            &[
                ("owner", json!("Project drive")),
                ("target", json!("x@evil.example")),
                ("added_role", json!(["organizer"])),
                ("membership_change_type", json!("add_to_shared_drive")),
            ]
        )]),
    ));
    assert!(events[0].get(field::OWNER).is_none());
    assert!(events[0].is(field::IS_EXTERNAL) && !events[0].is(field::IS_REMOVAL));
    assert_eq!(events[0].text(field::ROLE).as_deref(), Some("organizer"));
}

#[test]
fn forwarding_out_of_the_domain_is_the_same_item_in_both_applications() {
    let events = json!([{"type": "email_forwarding_change", "name": "email_forwarding_out_of_domain",
        "parameters": [{"name": "email_forwarding_destination_address", "value": "X@gmail.com"}]}]);
    let login = read(&activity("login", &events)).remove(0);
    let accounts = read(&activity("user_accounts", &events)).remove(0);
    assert_eq!(login.text(field::ITEM), accounts.text(field::ITEM));
    assert_ne!(login.record_id, accounts.record_id);
    assert_eq!(
        login.text(field::FORWARD_TO).as_deref(),
        Some("x@gmail.com")
    );
    assert_eq!(
        login.text(field::FORWARD_DIRECTION).as_deref(),
        Some("external")
    );
    assert!(login.is(field::EXTERNAL_IS_FREE_MAIL));
}

#[test]
fn a_warning_without_an_actor_is_about_the_account_it_names() {
    let warning = json!([{"type": "account_warning", "name": "suspicious_login", "parameters": [
        {"name": "affected_email_address", "value": "Bob@contoso.example"}]}]);
    let mut record = activity("login", &warning);
    let actor = |record: &Value| {
        let event = read(record).remove(0);
        let text = event.text(field::ACTOR).map(Cow::into_owned);
        (text, event.is(field::ACTOR_IS_INTERNAL))
    };
    let alice = Some("alice@contoso.example".to_owned());
    assert_eq!(actor(&record), (alice, true), "an actor stays");
    record["actor"] = json!({});
    let bob = Some("bob@contoso.example".to_owned());
    assert_eq!(actor(&record), (bob, true));
    record["events"] = json!([{"type": "login", "name": "logout"}]);
    assert_eq!(actor(&record), (None, false));
}

#[test]
fn a_failed_sign_in_is_told_from_others_and_from_those_that_succeeded() {
    let attempt = |name: &str| {
        let event = read(&activity("login", &json!([{"name": name}]))).remove(0);
        event.text(field::FAILED_SIGN_IN).map(Cow::into_owned)
    };
    let item = "2026-05-04T08:00:00.123Z/-42".to_owned();
    assert_eq!(attempt("login_failure"), Some(item));
    assert_eq!(attempt("login_success"), None);
}

#[test]
fn an_account_that_ends_is_told() {
    for (name, ended) in [
        ("DELETE_USER", Some("deleted")),
        ("SUSPEND_USER", Some("suspended")),
        ("ARCHIVE_USER", Some("suspended")),
        ("USER_LICENSE_REVOKE", Some("unlicensed")),
        ("UNSUSPEND_USER", None),
    ] {
        let parameters = json!([{"name": "USER_EMAIL", "value": "Bob@contoso.example"}]);
        let event = json!([{"name": name, "parameters": parameters}]);
        let event = read(&activity("admin", &event)).remove(0);
        assert_eq!(event.text(field::ACCOUNT_ENDED).as_deref(), ended, "{name}");
        assert_eq!(
            event.text(field::TARGET).as_deref(),
            Some("bob@contoso.example")
        );
    }
}

#[test]
fn an_event_without_a_name_has_the_empty_one() {
    let record = activity(
        "rules",
        &json!([{"parameters": []}, {"name": "rule_match"}, 7]),
    );
    let raw = RawRecord::new(record.to_string().into());
    let reader = GoogleRecords::new(Arc::default());
    assert_eq!(reader.operations(&raw).unwrap(), ["", "rule_match"]);
    let events = read(&record);
    let names: Vec<_> = events.iter().map(|e| e.text(field::OPERATION)).collect();
    assert_eq!(names, [Some("".into()), Some("rule_match".into())]);
}

#[test]
fn other_applications_name_target_object_and_role() {
    let parameter = |name: &str, value: &str| json!({"name": name, "value": value});
    for (application, parameters, target, object, external) in [
        (
            "admin",
            vec![
                parameter("USER_EMAIL", "X@evil.example"),
                parameter("GROUP_EMAIL", "sales@contoso.example"),
            ],
            "x@evil.example",
            "sales@contoso.example",
            true,
        ),
        (
            "groups_enterprise",
            vec![
                parameter("member_id", "bob@contoso.example"),
                parameter("group_id", "g@contoso.example"),
            ],
            "bob@contoso.example",
            "g@contoso.example",
            false,
        ),
        (
            "calendar",
            vec![
                parameter("grantee_email", PUBLIC),
                parameter("calendar_id", "c"),
            ],
            "anyone",
            "c",
            true,
        ),
    ] {
        let event = read(&activity(
            application,
            &json!([{"name": "e", "parameters": parameters}]),
        ))
        .remove(0);
        assert_eq!(event.text(field::TARGET).as_deref(), Some(target));
        assert_eq!(event.text(field::OBJECT).as_deref(), Some(object));
        assert_eq!(event.is(field::IS_EXTERNAL), external);
    }
}

const PUBLIC: &str = "__public_principal__@public.calendar.google.com";

#[test]
fn those_without_an_address_are_named_by_what_there_is() {
    let mut record = activity("drive", &json!([{"name": "view"}]));
    record["actor"] = json!({"profileId": ANONYMOUS_PROFILE});
    assert_eq!(
        read(&record)[0].text(field::ACTOR).as_deref(),
        Some("anonymous")
    );
    record["actor"] = json!({"callerType": "KEY", "key": "some-key"});
    assert_eq!(
        read(&record)[0].text(field::ACTOR).as_deref(),
        Some("some-key")
    );
}

#[test]
fn google_item_three_events_are_three_events_each_with_its_own_parameters() {
    let one = |name: &str| json!({"type": "t", "name": name, "parameters": [{"name": "n", "value": name}]});
    let record = activity(
        "calendar",
        &json!([one("first"), one("second"), one("third")]),
    );
    let events = read(&record);
    let shown: Vec<String> = events
        .iter()
        .map(|event| event.text("parameters.n").unwrap().into_owned())
        .collect();
    assert_eq!(shown, ["first", "second", "third"]);
    let parts: std::collections::BTreeSet<u32> = events.iter().map(|event| event.part).collect();
    assert_eq!(parts.len(), 3);
    // The same event three times over is three events, too.
    let same = activity("calendar", &json!([one("x"), one("x"), one("x")]));
    let parts: std::collections::BTreeSet<u32> = read(&same).iter().map(|e| e.part).collect();
    assert_eq!(parts.len(), 3);
}

#[test]
fn a_shape_the_vendor_never_had_before_is_read_as_far_as_it_goes() {
    for events in [
        json!({"name": "lone"}),
        json!([{"name": "lone", "parameters": {"not": "a list"}}]),
        json!([{"name": "lone", "parameters": [7, null, {"name": "n", "newValue": {"a": 1}}]}]),
        json!([{"name": "lone", "parameters": [{"name": 5, "value": []}], "status": {"x": [1]}}]),
    ] {
        let events = read(&activity("admin", &events));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].text(field::OPERATION).unwrap(), "lone");
    }
}

fn alert(etag: &str) -> Value {
    json!({
        "customerId": "01abc", "alertId": "a1", "createTime": "2026-05-04T08:00:00.123456Z",
        "type": "Suspicious login", "source": "Google identity", "etag": etag,
        "updateTime": "2026-05-05T08:00:00Z", "metadata": {"severity": "LOW"},
        "data": {"@type": "t", "email": "Alice@contoso.example",
                 "loginDetails": {"ipAddress": "203.0.113.9"}},
    })
}

#[test]
fn an_alert_has_head_and_event_and_another_etag_makes_another_version() {
    let record = |etag: &str| RawRecord::new(alert(etag).to_string().into());
    let reader = GoogleRecords::new(Arc::new(Domains::new(&["contoso.example"], &[])));
    let (first, second) = (record("e1="), record("e2="));
    let head = reader.head(&first).unwrap();
    assert_eq!(head.id.as_deref(), Some("a1/e1="));
    assert_eq!(head.operations, ["Suspicious login"]);
    assert_eq!(head.actor.as_deref(), Some("Alice@contoso.example"));
    assert_eq!(
        head.time.unwrap().to_rfc3339(),
        "2026-05-04T08:00:00.123456+00:00"
    );
    assert_eq!(reader.operations(&first).unwrap(), ["Suspicious login"]);
    let key = [1; 16];
    let again = record("e1=");
    assert_eq!(
        head.fingerprint(&key),
        reader.head(&again).unwrap().fingerprint(&key)
    );
    assert_ne!(
        head.fingerprint(&key),
        reader.head(&second).unwrap().fingerprint(&key)
    );
    let events = reader.normalise(&first, DateTime::UNIX_EPOCH).unwrap();
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    for (name, value) in [
        (field::OPERATION, "Suspicious login"),
        (field::SERVICE, "alertcenter"),
        (field::ACTOR, "alice@contoso.example"),
        (field::ACTOR_DOMAIN, "contoso.example"),
        (field::SOURCE_IP, "203.0.113.9"),
        (field::ALERT_ID, "a1"),
        (field::ITEM, "a1"),
        ("source", "Google identity"),
        ("metadata.severity", "LOW"),
    ] {
        assert_eq!(event.text(name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn what_the_vendor_says_of_the_network_is_said_by_our_fields() {
    let mut record = activity("login", &json!([{"name": "login_success"}]));
    record["networkInfo"] =
        json!({"ipAsn": [15169, "396982"], "regionCode": "US", "subdivisionCode": "US-CA"});
    let event = read(&record).remove(0);
    let numbers = Field::List(vec![15169.into(), 396_982.into()]);
    assert_eq!(event.get(field::SOURCE_ASN), Some(&numbers));
    assert_eq!(event.text(field::SOURCE_REGION).as_deref(), Some("US"));
    record["networkInfo"] = json!({"ipAsn": [], "regionCode": ""});
    let event = read(&record).remove(0);
    assert!(event.get(field::SOURCE_ASN).is_none());
    assert!(event.get(field::SOURCE_REGION).is_none());
}
