use super::super::sample::aws;
use super::*;

fn found(id: &str, vpc: &str) -> SubnetFacts {
    SubnetFacts { id: id.to_owned(), zone: format!("zone-of-{id}"), vpc: vpc.to_owned(), room: 250 }
}

/// A default VPC with a public subnet `a`, and `b` behind a NAT gateway.
fn facts() -> NetworkFacts {
    let main = RouteTable {
        vpc: "vpc-1".to_owned(),
        main: true,
        internet: true,
        out: true,
        ..RouteTable::default()
    };
    let nat = RouteTable {
        vpc: "vpc-1".to_owned(),
        subnets: vec!["b".to_owned()],
        out: true,
        ..RouteTable::default()
    };
    NetworkFacts {
        vpcs: vec![Vpc { id: "vpc-1".to_owned(), default: true, cidrs: vec!["172.31.0.0/16".to_owned()] }],
        subnets: vec![found("a", "vpc-1"), found("b", "vpc-1")],
        tables: vec![main, nat],
        groups: vec![],
        inside: None,
    }
}

fn ids(network: &Network) -> Vec<&str> {
    network.subnets.iter().map(|subnet| subnet.id.as_str()).collect()
}

fn texts(problems: &[PlanProblem]) -> String {
    problems.iter().map(PlanProblem::text).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_default_vpc_gives_its_public_subnets() {
    let (network, warnings) = choose(&facts(), &aws()).unwrap();
    assert_eq!((network.vpc.as_str(), ids(&network)), ("vpc-1", vec!["a"]));
    assert!(network.public && !network.by_private && network.inbound.is_empty());
    assert_eq!(warnings, ["left out, as no route to an internet gateway leads out of it: b"]);
}

#[test]
fn of_two_subnets_in_a_zone_the_roomier_is_taken() {
    let (small, large) = (SubnetFacts { room: 3, ..found("a", "vpc-1") }, found("c", "vpc-1"));
    let large = SubnetFacts { zone: small.zone.clone(), ..large };
    let facts = NetworkFacts { subnets: vec![small, large], ..facts() };
    assert_eq!(ids(&choose(&facts, &aws()).unwrap().0), ["c"]);
}

#[test]
fn a_subnet_without_a_way_in_is_refused() {
    let aws = AwsSettings { subnets: vec!["b".to_owned()], ..aws() };
    let facts = NetworkFacts { subnets: vec![found("b", "vpc-1")], ..facts() };
    let problems = texts(&choose(&facts, &aws).unwrap_err());
    assert!(problems.starts_with("SUBNET offers no way in: no route to an internet gateway leads out of b,"));
}

#[test]
fn a_default_network_without_a_way_in_is_not_blamed_on_a_variable_that_is_not_set() {
    let facts = NetworkFacts { subnets: vec![found("b", "vpc-1")], ..facts() };
    let problems = texts(&choose(&facts, &aws()).unwrap_err());
    assert!(problems.starts_with("the default VPC vpc-1 offers no way in: no route to an internet gateway"));
    assert!(problems.contains("name public subnets of another VPC in SUBNET"), "{problems}");
}

#[test]
fn by_private_address_every_subnet_will_do_and_the_vpc_may_come_in() {
    let (network, warnings) =
        choose(&facts(), &AwsSettings { ssh_address: SshAddress::Private, ..aws() }).unwrap();
    assert_eq!(ids(&network), ["a", "b"]);
    assert!(!network.public && network.by_private);
    assert_eq!((network.inbound, warnings), (vec!["172.31.0.0/16".to_owned()], vec![]));
}

#[test]
fn a_subnet_without_any_way_out_is_warned_of() {
    let shut = RouteTable { vpc: "vpc-1".to_owned(), main: true, ..RouteTable::default() };
    let facts = NetworkFacts { tables: vec![shut], ..facts() };
    let (_, warnings) = choose(&facts, &AwsSettings { ssh_address: SshAddress::Private, ..aws() }).unwrap();
    assert_eq!(warnings, ["no route leads out of a, b: a training there downloads nothing"]);
}

#[test]
fn a_pipe_inside_the_vpc_comes_in_by_its_own_address() {
    let inside =
        |vpc: &str| NetworkFacts { inside: Some((vpc.to_owned(), Ipv4Addr::new(172, 31, 0, 9))), ..facts() };
    let (network, _) = choose(&inside("vpc-1"), &aws()).unwrap();
    assert!(network.by_private && !network.public, "b has no public addresses");
    assert_eq!(network.inbound, ["172.31.0.9/32"]);
    let (network, _) = choose(&inside("vpc-2"), &aws()).unwrap();
    assert!(!network.by_private);
    let given = AwsSettings { ssh_cidrs: vec!["10.0.0.0/8".to_owned()], ..aws() };
    assert_eq!(choose(&inside("vpc-1"), &given).unwrap().0.inbound, ["10.0.0.0/8"]);
}

#[test]
fn without_a_default_vpc_subnets_must_be_named() {
    let facts = NetworkFacts::default();
    let problems = texts(&choose(&facts, &aws()).unwrap_err());
    assert!(problems.starts_with("SUBNET is not set, and the region has no default VPC;"), "{problems}");
}

#[test]
fn subnets_must_exist_and_lie_in_one_vpc() {
    let names = |names: &[&str]| AwsSettings {
        subnets: names.iter().map(|&name| name.to_owned()).collect(),
        ..aws()
    };
    let problems = texts(&choose(&facts(), &names(&["a", "c"])).unwrap_err());
    assert_eq!(problems, "SUBNET names c, which the region does not have");
    let two = NetworkFacts { subnets: vec![found("a", "vpc-1"), found("c", "vpc-2")], ..facts() };
    let problems = texts(&choose(&two, &names(&["a", "c"])).unwrap_err());
    assert_eq!(problems, "SUBNET names subnets of several VPCs (vpc-1, vpc-2); take those of one");
}

#[test]
fn a_group_is_of_the_subnets_vpc() {
    let group =
        |id: &str, vpc: &str, lets_ssh_in| Group { id: id.to_owned(), vpc: vpc.to_owned(), lets_ssh_in };
    let groups = vec![group("sg-2", "vpc-2", true), group("sg-1", "vpc-1", false)];
    let facts = NetworkFacts { groups, ..facts() };
    let with =
        |wanted: &str| choose(&facts, &AwsSettings { security_group: Some(wanted.to_owned()), ..aws() });
    let (network, warnings) = with("sg-1").unwrap();
    assert_eq!(network.security_group.as_deref(), Some("sg-1"));
    assert_eq!(warnings[1], "SECURITY_GROUP sg-1 has no rule that lets port 22 in");
    let problems = texts(&with("sg-2").unwrap_err());
    assert_eq!(problems, "SECURITY_GROUP is sg-2, which is of vpc-2, but the subnets are of vpc-1");
    assert_eq!(texts(&with("sg-9").unwrap_err()), "SECURITY_GROUP is sg-9, which the region does not have");
}

#[test]
fn routes_and_rules_are_read_as_ec2_writes_them() {
    let route = |gateway: &str, state| {
        sdk::Route::builder().destination_cidr_block("0.0.0.0/0").gateway_id(gateway).state(state).build()
    };
    let table = |route| RouteTable::from(sdk::RouteTable::builder().routes(route).build());
    assert!(table(route("igw-1", sdk::RouteState::Active)).internet);
    assert!(!table(route("igw-1", sdk::RouteState::Blackhole)).out);
    assert!(!table(route("vgw-1", sdk::RouteState::Active)).internet);
    let rule = |protocol: &str, from, to| {
        let rule =
            sdk::IpPermission::builder().ip_protocol(protocol).set_from_port(from).set_to_port(to).build();
        Group::from(sdk::SecurityGroup::builder().ip_permissions(rule).build()).lets_ssh_in
    };
    assert!(rule("-1", None, None) && rule("tcp", Some(22), Some(22)) && rule("tcp", Some(0), Some(65535)));
    assert!(!rule("tcp", Some(80), Some(443)) && !rule("udp", Some(22), Some(22)));
}
