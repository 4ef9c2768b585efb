use super::*;
use crate::{Exchange, HashCost, Subscribing, hash_password};
use base_types::{ClientId, SubscriptionFilter, TopicName};
use std::net::IpAddr;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn connect(user: Option<&str>, password: &'static str, peer: IpAddr) -> ConnectInfo {
    ConnectInfo {
        client_id: ByteString::from_static("c"),
        username: user.map(ByteString::from),
        password: user.map(|_| Bytes::from_static(password.as_bytes())),
        peer,
        certificate: None,
        exchange: None,
    }
}

fn principal(user: Option<&str>, client: &str) -> Principal {
    Principal {
        tenant: TenantId::default(),
        user: user.map(ByteString::from),
        client: ClientId::new(client.to_owned()).unwrap(),
    }
}

fn filter(text: &str) -> SubscriptionFilter {
    SubscriptionFilter::parse(&ByteString::from(text)).unwrap()
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text.to_owned()).unwrap()
}

fn accepted(user: Option<&str>) -> Decision {
    let user = user.map(ByteString::from);
    Decision::Accept { tenant: TenantId::default(), user, data: None, response_information: None }
}

/// A folder with files, and an access that uses them.
struct Files {
    directory: tempfile::TempDir,
    config: AccessConfig,
}

impl Files {
    fn new(users: &[(&str, &str)], rules: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = AccessConfig::default();
        if !users.is_empty() {
            let path = directory.path().join("users");
            let mut file = Users::default();
            for (name, password) in users {
                file.add(name, &hash_password(password.as_bytes(), HashCost::minimal()).unwrap()).unwrap();
            }
            file.write(&path).unwrap();
            config.users_file = Some(path);
        }
        if let Some(rules) = rules {
            let path = directory.path().join("acl.yml");
            std::fs::write(&path, rules).unwrap();
            config.acl_file = Some(path);
        }
        Self { directory, config }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn open(&self) -> Access {
        Access::open(self.config.clone()).unwrap()
    }
}

#[tokio::test]
async fn without_files_everybody_here_gets_in_and_nobody_from_elsewhere() {
    let access = Files::new(&[], None).open();
    assert_eq!(access.authenticate(&connect(None, "", HERE)).await, accepted(None));
    assert_eq!(access.authenticate(&connect(None, "", "::1".parse().unwrap())).await, accepted(None));
    assert_eq!(access.authenticate(&connect(None, "", "::ffff:127.0.0.1".parse().unwrap())).await, accepted(None));
    let refused = Decision::Refuse(Refusal::AnonymousNotAllowed);
    assert_eq!(access.authenticate(&connect(None, "", THERE)).await, refused);
    // A name that nothing verifies is not believed.
    assert_eq!(access.authenticate(&connect(Some("root"), "x", HERE)).await, accepted(None));
    assert_eq!(access.authenticate(&connect(Some("root"), "x", THERE)).await, refused);

    let always = Access::open(AccessConfig { anonymous: Anonymous::Always, ..AccessConfig::default() }).unwrap();
    assert_eq!(always.authenticate(&connect(None, "", THERE)).await, accepted(None));
    let never = Access::open(AccessConfig { anonymous: Anonymous::Never, ..AccessConfig::default() }).unwrap();
    assert_eq!(never.authenticate(&connect(None, "", HERE)).await, refused);
}

#[tokio::test]
async fn users_get_in_with_their_password_only() {
    let access = Files::new(&[("ann", "secret"), ("bob", "other")], None).open();
    assert_eq!(access.authenticate(&connect(Some("ann"), "secret", THERE)).await, accepted(Some("ann")));
    for (user, password) in [("ann", "other"), ("ann", ""), ("eve", "secret"), ("", "secret"), ("Ann", "secret")] {
        let decision = access.authenticate(&connect(Some(user), password, HERE)).await;
        assert_eq!(decision, Decision::Refuse(Refusal::BadCredentials), "{user} {password}");
    }
    let mut without_password = connect(Some("ann"), "", HERE);
    without_password.password = None;
    assert_eq!(access.authenticate(&without_password).await, Decision::Refuse(Refusal::BadCredentials));
    assert_eq!(Refusal::BadCredentials.reason_code(), mqtt_codec::ReasonCode::BadUserNameOrPassword);
}

#[tokio::test]
async fn too_many_failures_close_the_door_for_that_source_only() {
    let access = Files::new(&[("ann", "secret")], None).open();
    for _ in 0..10 {
        let decision = access.authenticate(&connect(Some("ann"), "guess", THERE)).await;
        assert_eq!(decision, Decision::Refuse(Refusal::BadCredentials));
    }
    let decision = access.authenticate(&connect(Some("ann"), "secret", THERE)).await;
    assert_eq!(decision, Decision::Refuse(Refusal::TooManyFailures));
    assert_eq!(access.authenticate(&connect(Some("ann"), "secret", HERE)).await, accepted(Some("ann")));
}

#[tokio::test]
async fn what_takes_too_long_is_refused() {
    let mut files = Files::new(&[("ann", "secret")], None);
    files.config.timeout = Duration::ZERO;
    let access = files.open();
    let _all = access.hashing.clone().acquire_many_owned(access.hashing.available_permits() as u32).await.unwrap();
    let decision = access.authenticate(&connect(Some("ann"), "secret", HERE)).await;
    assert_eq!(decision, Decision::Refuse(Refusal::Unavailable));
}

#[tokio::test]
async fn too_many_logins_at_the_same_time_are_told_to_come_back() {
    let access = Files::new(&[("ann", "secret")], None).open();
    let _all = access.waiting.clone().acquire_many_owned(WAITING_MAX as u32).await.unwrap();
    assert_eq!(access.authenticate(&connect(Some("ann"), "secret", HERE)).await, Decision::Refuse(Refusal::Busy));
}

#[tokio::test]
async fn an_unknown_authentication_method_is_refused() {
    let access = Files::new(&[], None).open();
    let exchange = Exchange { method: ByteString::from_static("SCRAM-SHA-256"), data: None, reauthenticate: false };
    let info = ConnectInfo { exchange: Some(exchange), ..connect(None, "", HERE) };
    assert_eq!(access.authenticate(&info).await, Decision::Refuse(Refusal::BadAuthenticationMethod));
    assert_eq!(access.exchange(&info).await, Decision::Refuse(Refusal::BadAuthenticationMethod));
}

#[tokio::test]
async fn rules_decide_who_may_connect() {
    let rules = "rules:\n- {deny: connect, clients: 'bad*'}\n- {allow: connect, users: ann}\n- {deny: connect, anonymous: false}\n\
                 - {allow: all, topics: '#'}\n";
    let access = Files::new(&[("ann", "a"), ("bob", "b")], Some(rules)).open();
    assert_eq!(access.authenticate(&connect(Some("ann"), "a", HERE)).await, accepted(Some("ann")));
    assert_eq!(access.authenticate(&connect(None, "", HERE)).await, accepted(None));
    let refused = Decision::Refuse(Refusal::NotAuthorized);
    assert_eq!(access.authenticate(&connect(Some("bob"), "b", HERE)).await, refused);
    let bad = ConnectInfo { client_id: ByteString::from_static("bad1"), ..connect(Some("ann"), "a", HERE) };
    assert_eq!(access.authenticate(&bad).await, refused);
    assert!(!access.permissions(&principal(Some("ann"), "bad1")).may_connect());
    assert!(access.permissions(&principal(Some("ann"), "good")).may_connect());
}

#[test]
fn without_rules_all_but_publishing_to_system_topics_is_allowed() {
    let permissions = Files::new(&[], None).open().permissions(&principal(None, "c"));
    assert!(permissions.may_publish(&topic("a"), true));
    assert!(!permissions.may_publish(&topic("$SYS/broker/uptime"), false));
    assert!(permissions.may_receive(&topic("$SYS/broker/uptime")));
    assert_eq!(permissions.may_subscribe(&filter("$SYS/#")), Subscribing::Allowed { check_each: false });
}

/// What the Paho interoperability suite wants of a broker.
#[test]
fn one_filter_can_be_refused_to_everybody() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/paho-acl.yml")).unwrap();
    let permissions = Rules::parse(&text).unwrap().compile(&principal(None, "c"), 1);
    assert_eq!(permissions.may_subscribe(&filter("test/nosubscribe")), Subscribing::Denied);
    assert_eq!(permissions.may_subscribe(&filter("$share/g/test/nosubscribe")), Subscribing::Denied);
    assert_eq!(permissions.may_subscribe(&filter("#")), Subscribing::Allowed { check_each: true });
    assert_eq!(permissions.may_subscribe(&filter("TopicA/+")), Subscribing::Allowed { check_each: false });
    assert!(permissions.may_publish(&topic("test/nosubscribe"), true));
}

#[test]
fn the_documented_example_does_what_it_says() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/acl.yml")).unwrap();
    let rules = Rules::parse(&text).unwrap();
    let of = |user: Option<&str>, client: &str| rules.compile(&principal(user, client), 1);

    let admin = of(Some("admin"), "x");
    assert!(admin.may_publish(&topic("anything/at/all"), true));
    assert_eq!(admin.may_subscribe(&filter("$SYS/#")), Subscribing::Allowed { check_each: false });
    assert_eq!(admin.may_subscribe(&filter("#")), Subscribing::Allowed { check_each: false });

    let device = of(Some("dev-7"), "x");
    assert!(device.may_publish(&topic("devices/dev-7/temperature"), true));
    assert!(!device.may_publish(&topic("devices/dev-8/temperature"), false));
    assert!(!device.may_publish(&topic("announcements/x"), false));
    assert_eq!(device.may_subscribe(&filter("devices/dev-7/#")), Subscribing::Allowed { check_each: false });
    assert_eq!(device.may_subscribe(&filter("devices/#")), Subscribing::Denied);
    assert_eq!(device.may_subscribe(&filter("announcements/#")), Subscribing::Allowed { check_each: true });
    assert!(device.may_receive(&topic("announcements/all")));
    assert!(!device.may_receive(&topic("announcements/staff/only")));

    let anonymous = of(None, "x");
    assert!(!anonymous.may_publish(&topic("announcements/x"), false));
    assert_eq!(anonymous.may_subscribe(&filter("announcements/all")), Subscribing::Allowed { check_each: false });
}

#[test]
fn names_in_topics_are_never_more_than_names() {
    let rules = Rules::parse(
        "rules:\n- {deny: publish, topics: 'private/%u/no'}\n- {allow: publish, topics: ['dev/%c/#', 'private/%u/#', '%u/x']}\n",
    )
    .unwrap();
    let plain = rules.compile(&principal(Some("ann"), "c1"), 1);
    assert!(plain.may_publish(&topic("dev/c1/a"), false));
    assert!(plain.may_publish(&topic("private/ann/yes"), false));
    assert!(!plain.may_publish(&topic("private/ann/no"), false));
    assert!(plain.may_publish(&topic("ann/x"), false));
    for name in ["+", "#", "c1/x", "dev/+", "$SYS", "%u", "a\u{0}"] {
        let Ok(client) = ClientId::new(name.to_owned()) else { continue };
        let user = Some(ByteString::from(name));
        let permissions = rules.compile(&Principal { tenant: TenantId::default(), user, client }, 1);
        assert!(!permissions.may_publish(&topic("dev/c1/x"), false), "{name}");
        assert!(!permissions.may_publish(&topic("private/ann/yes"), false), "{name}");
        assert!(!permissions.may_publish(&topic("$SYS/x"), false), "{name}");
    }
    // Somebody without a name has no topics of that name.
    assert!(!rules.compile(&principal(None, "c1"), 1).may_publish(&topic("private//yes"), false));
    assert!(rules.compile(&principal(None, "c1"), 1).may_publish(&topic("dev/c1/a"), false));
}

#[test]
fn a_client_id_can_be_bound_to_the_user() {
    let rules = Rules::parse(
        "rules:\n- {allow: connect, clients: ['%u', 'app-%u-*']}\n- {deny: connect, anonymous: false}\n- {allow: all, topics: '#'}\n",
    )
    .unwrap();
    for (client, user, want) in [
        ("ann", Some("ann"), true),
        ("app-ann-1", Some("ann"), true),
        ("app-ann", Some("ann"), false),
        ("bob", Some("ann"), false),
        ("ann", Some("an*"), false),
        ("ann", Some("%u"), false),
        ("whatever", None, true),
    ] {
        assert_eq!(rules.may_connect(client, user), want, "{client} {user:?}");
    }
}

#[test]
fn retaining_needs_a_right_of_its_own() {
    let rules =
        Rules::parse("rules:\n- {allow: publish, topics: '#'}\n- {allow: retain, topics: 'state/#'}\n").unwrap();
    let permissions = rules.compile(&principal(None, "c"), 1);
    assert!(permissions.may_publish(&topic("event"), false));
    assert!(!permissions.may_publish(&topic("event"), true));
    assert!(permissions.may_publish(&topic("state/a"), true));
    assert_eq!(permissions.may_subscribe(&filter("a")), Subscribing::Denied);
}

#[test]
fn a_reload_holds_for_present_clients_or_changes_nothing() {
    let files = Files::new(&[("ann", "a")], Some("rules:\n- {allow: all, topics: 'a/#'}\n"));
    let access = files.open();
    let who = principal(Some("ann"), "c");
    let before = access.permissions(&who);
    assert_eq!(before.generation(), access.generation());
    assert!(!access.reload_if_changed().unwrap());

    files.write("acl.yml", "rules:\n- {allow: all, topics: 'b/#'}\n- {allow: nonsense, topics: x}\n");
    let error = access.reload_if_changed().unwrap_err().to_string();
    assert!(error.contains("acl.yml") && error.contains("rule 2"), "{error}");
    assert_eq!(before.generation(), access.generation());
    assert!(access.permissions(&who).may_publish(&topic("a/1"), false));
    assert!(!access.reload_if_changed().unwrap(), "the same mistake is told once");

    files.write("acl.yml", "rules:\n- {allow: all, topics: 'b/#'}\n");
    assert!(access.reload_if_changed().unwrap());
    assert!(access.generation() > before.generation());
    let after = access.permissions(&who);
    assert_eq!(after.generation(), access.generation());
    assert!(!after.may_publish(&topic("a/1"), false) && after.may_publish(&topic("b/1"), false));

    // The user is gone: nothing is allowed any more.
    files.write("users", &format!("bob:{}\n", hash_password(b"b", HashCost::minimal()).unwrap()));
    access.reload().unwrap();
    let gone = access.permissions(&who);
    assert!(!gone.may_connect() && !gone.may_publish(&topic("b/1"), false) && !gone.may_receive(&topic("b/1")));
    assert!(access.permissions(&principal(None, "c")).may_connect());
}

#[test]
fn files_that_say_nothing_are_refused() {
    for (users, rules) in [
        (Some(""), None),
        (Some("# nobody\n"), None),
        (Some("ann:plain"), None),
        (None, Some("")),
        (None, Some("rules: []")),
    ] {
        let mut files = Files::new(&[], None);
        files.config.users_file = users.map(|text| {
            files.write("users", text);
            files.directory.path().join("users")
        });
        files.config.acl_file = rules.map(|text| {
            files.write("acl.yml", text);
            files.directory.path().join("acl.yml")
        });
        Access::open(files.config.clone()).unwrap_err();
    }
    let missing = AccessConfig { users_file: Some("/does/not/exist".into()), ..AccessConfig::default() };
    assert!(Access::open(missing).unwrap_err().to_string().contains("/does/not/exist"));
    let folder = AccessConfig { acl_file: Some("/".into()), ..AccessConfig::default() };
    assert!(matches!(Access::open(folder).unwrap_err(), AccessError::Unreadable { .. }));
}

#[test]
fn a_password_is_never_shown() {
    let shown = format!("{:?}", connect(Some("ann"), "hunter2", HERE));
    assert!(shown.contains("ann") && !shown.contains("hunter2") && !shown.contains("104"), "{shown}");
}
