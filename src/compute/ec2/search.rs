//! The search for a machine: every way to pay, every region and every pool, until there is one or the time is over.

use super::failure::{Class, Failure};
use super::fleet::{Answer, Launched, Refusal, Request};
use super::machines::{ALIVE, Seen};
use super::plan::{Plan, RegionPlan};
use super::pools::{Family, Mode, Pass, Place, attempts, family, places};
use super::refusals::Refusals;
use super::tags::{HOST_KEY, RUN, USER};
use super::user_data::{Lease, user_data};
use super::{Ec2, group, machines, template};
use crate::compute::{Machine, Order};
use crate::error::{Error, Kind, Result};
use crate::log::progress::in_words;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// The wait after a round in which nothing was to be had; doubled for each further one. Capacity comes back in minutes.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_mins(2);
/// How often something that was just made may be unknown to the next call.
const GONE: u32 = 3;
const GONE_WAIT: Duration = Duration::from_secs(3);
/// When to look for a machine whose launch was not answered.
const LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(5)];
/// What the files of a run take on their way, at most: the machine must not end while its outputs are being fetched.
/// The supervisor's grace ends it much earlier when nobody fetches them.
const TRANSFERS: Duration = Duration::from_hours(1);

/// One search.
struct Search<'a> {
    ec2: &'a Ec2,
    order: &'a Order,
    plan: &'a Plan,
    refusals: Refusals,
    /// Quotas that are used up in a region, as far as this round knows.
    full: BTreeSet<(usize, Mode, Family)>,
    /// Regions where a fleet was asked for and no answer came.
    unanswered: BTreeSet<String>,
    /// How often something that was just made was not known yet.
    gone: u32,
}

/// What one attempt came to.
enum Found {
    Machine(Machine),
    Nothing,
    /// A quota is used up that other families do not share.
    TryOthers,
}

impl Ec2 {
    /// See [`crate::compute::Compute::launch`].
    pub(super) async fn search(&self, order: &Order) -> Result<Machine> {
        let mut search = Search {
            ec2: self,
            order,
            plan: self.plan().await?,
            refusals: Refusals::default(),
            full: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            gone: 0,
        };
        let found = search.run().await;
        found.map_err(|error| search.with_leftovers(error))
    }
}

impl Search<'_> {
    async fn run(&mut self) -> Result<Machine> {
        let start = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            if let Some(machine) = self.round().await? {
                return Ok(machine);
            }
            let left = self.ec2.aws.capacity_wait.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(self.refusals.error(start.elapsed()));
            }
            let pause = wait.mul_f64(0.75 + fastrand::f64() / 2.0).min(left);
            info!("asking again in {}, for {} more", in_words(pause), in_words(left));
            sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn round(&mut self) -> Result<Option<Machine>> {
        self.full.clear();
        for (pass, mode, region) in attempts(self.ec2.aws.purchase, self.plan.regions.len()) {
            loop {
                match self.attempt(pass, mode, region).await? {
                    Found::Machine(machine) => return Ok(Some(machine)),
                    Found::TryOthers => {}
                    Found::Nothing => break,
                }
            }
        }
        Ok(None)
    }

    async fn attempt(&mut self, pass: Pass, mode: Mode, index: usize) -> Result<Found> {
        let plan = &self.plan.regions[index];
        let full = self.full.iter().filter(|(region, ..)| *region == index);
        let full = full.map(|(_, mode, family)| (*mode, *family)).collect();
        let places = places(plan, (pass, mode), &self.order.avoid, &full);
        if places.is_empty() {
            return Ok(Found::Nothing);
        }
        if self.unanswered.contains(&plan.region)
            && let Some(machine) = self.adopt(&plan.region).await?
        {
            return Ok(Found::Machine(machine));
        }
        let template = self.ec2.template(plan, mode, self.order).await?;
        let request = Request::new(&self.ec2.aws, mode, places, plan.machine.by_attributes);
        match self.ask(plan, request.clone(), template).await {
            Ok(Answer { launched, refused }) => match launched.into_iter().next() {
                Some(launched) => Ok(Found::Machine(Ec2::machine_in(&launched.id, &launched.pool, mode))),
                None => self.refused(index, &request, refused).await,
            },
            Err(failure) if failure.class() == Class::Passing => self.unknown(plan, mode, failure).await,
            Err(failure) => self.refused(index, &request, vec![Refusal { pool: None, failure }]).await,
        }
    }

    /// Asks in a task of its own: a request that was sent is followed to its answer, also if this search is dropped.
    async fn ask(&self, plan: &RegionPlan, request: Request, template: String) -> Result<Answer, Failure> {
        let mut made = Arc::clone(&self.ec2.made).lock_owned().await;
        let ec2 = (Arc::clone(&self.ec2.cloud), self.ec2.tags(&self.order.run), self.order.run.clone());
        let ((cloud, tags, run), plan) = (ec2, plan.clone());
        let tags = tags.with(HOST_KEY, &self.ec2.host_key).with(USER, &plan.image.user);
        let asking = tokio::spawn(async move {
            let answer = request.send(&cloud, &plan, &template, &tags).await?;
            made.extend(answer.launched.iter().map(|launched| (run.clone(), launched.clone())));
            Ok(answer)
        });
        asking.await.unwrap_or_else(|_| Err(Failure::incomplete("machine")))
    }

    async fn refused(&mut self, index: usize, request: &Request, refused: Vec<Refusal>) -> Result<Found> {
        let region = &self.plan.regions[index].region;
        let known = self.full.len();
        self.full.extend(used_up(&refused, &request.places).map(|family| (index, request.mode, family)));
        let verdict = verdict(&refused);
        self.gone += u32::from(verdict == Some(Class::Gone));
        let over = match verdict {
            Some(Class::Gone) => self.gone > GONE,
            other => other == Some(Class::Fatal),
        };
        if over {
            return Err(hopeless(region, refused));
        }
        for line in self.refusals.add(region, request.mode, &refused) {
            warn!("{line}");
        }
        match verdict {
            Some(Class::Gone) => {
                self.ec2.forget_template(region, request.mode).await;
                sleep(GONE_WAIT).await;
                Ok(Found::TryOthers)
            }
            _ if self.full.len() > known => Ok(Found::TryOthers),
            _ => Ok(Found::Nothing),
        }
    }

    /// No answer came, so nobody knows whether there is a machine: it is looked for by its tags.
    async fn unknown(&mut self, plan: &RegionPlan, mode: Mode, failure: Failure) -> Result<Found> {
        self.unanswered.insert(plan.region.clone());
        for line in self.refusals.add(&plan.region, mode, &[Refusal { pool: None, failure }]) {
            warn!("{line}");
        }
        for wait in LOOKS {
            sleep(wait).await;
            if let Some(machine) = self.adopt(&plan.region).await? {
                return Ok(Found::Machine(machine));
            }
        }
        Ok(Found::Nothing)
    }

    /// The machine that this process launched without knowing it. Its host key tells it from those of earlier tries.
    async fn adopt(&self, region: &str) -> Result<Option<Machine>> {
        let found = match machines::of_run(&self.ec2.cloud, region, &self.order.run, &ALIVE).await {
            Err(failure) if failure.class() == Class::Passing => return Ok(None),
            found => found?,
        };
        let mut made = self.ec2.made.lock().await;
        let is_new = |seen: &&Seen| !made.iter().any(|(_, launched)| launched.id == seen.id);
        let ours = |seen: &&Seen| seen.tag(HOST_KEY) == Some(&self.ec2.host_key);
        let Some(seen) = found.iter().find(|seen| ours(seen) && is_new(seen)) else { return Ok(None) };
        made.push((self.order.run.clone(), Launched { id: seen.id.clone(), pool: seen.pool.clone() }));
        Ok(Some(Ec2::machine(seen)))
    }

    fn with_leftovers(&self, error: Error) -> Error {
        let run = &self.order.run;
        self.unanswered.iter().fold(error, |error, region| {
            error.leaves(format!(
                "perhaps a machine in {region}, as AWS did not answer; it ends itself within BOOT_TIMEOUT: \
                 aws ec2 describe-instances --region {region} --filters Name=tag:{RUN},Values={run}"
            ))
        })
    }
}

impl Ec2 {
    /// The run's template in a region for one way to pay, and the group that it names; made once by a process, as they hold its keys.
    async fn template(&self, plan: &RegionPlan, mode: Mode, order: &Order) -> Result<String> {
        let mut templates = self.templates.lock().await;
        let place = (plan.region.clone(), mode);
        if let Some((_, template)) = templates.get(&place).filter(|(run, _)| *run == order.run) {
            return Ok(template.clone());
        }
        let (cloud, tags) = (&self.cloud, self.tags(&order.run));
        let lease = Lease {
            boot: self.aws.boot_timeout,
            grace: order.orphan_grace,
            life: order.max_runtime + self.aws.boot_timeout + order.orphan_grace + TRANSFERS,
        };
        let text = user_data(&self.host, &self.client, lease)?;
        let (group, from) = match &plan.network.security_group {
            Some(group) => (group.clone(), &[][..]),
            None => (group::group(cloud, plan, &order.run, &tags).await?, plan.network.inbound.as_slice()),
        };
        let data = template::data(&self.aws, plan, mode, &group, &text, &tags);
        let name = template::name(&order.run, mode);
        let ((), id) = tokio::try_join!(
            group::let_in(cloud, &plan.region, &group, from),
            template::template(cloud, &plan.region, &name, data, &tags)
        )?;
        templates.insert(place, (order.run.clone(), id.clone()));
        Ok(id)
    }

    async fn forget_template(&self, region: &str, mode: Mode) {
        self.templates.lock().await.remove(&(region.to_owned(), mode));
    }
}

fn hopeless(region: &str, refused: Vec<Refusal>) -> Error {
    let what = format!("cannot get a machine in {region}");
    match refused.into_iter().next() {
        Some(refusal) => refusal.failure.during("ec2:CreateFleet", &what).into(),
        None => Error::new(what).kind(Kind::Machine),
    }
}

/// What refusals mean together: there is hope as long as one of them leaves some.
fn verdict(refused: &[Refusal]) -> Option<Class> {
    let despair = |class: Class| match class {
        Class::Elsewhere | Class::OtherFamily | Class::Passing => 0,
        Class::Gone => 1,
        Class::Fatal => 2,
    };
    refused.iter().map(|refusal| refusal.failure.class()).min_by_key(|class| despair(*class))
}

/// The families whose quota is used up; all that were asked for, where AWS does not say which.
fn used_up(refused: &[Refusal], asked: &[Place]) -> impl Iterator<Item = Family> {
    let quota = refused.iter().filter(|refusal| refusal.failure.class() == Class::OtherFamily);
    quota.flat_map(|refusal| match &refusal.pool {
        Some(pool) => vec![family(&pool.instance_type)],
        None => asked.iter().flat_map(|place| place.types.iter().map(|name| family(name))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Pool;

    fn refusal(code: &str, kind: Option<&str>) -> Refusal {
        let pool = kind.map(|kind| Pool { zone: "a".to_owned(), instance_type: kind.to_owned() });
        Refusal { pool, failure: Failure::told(code, "no") }
    }

    #[test]
    fn one_refusal_that_leaves_hope_is_enough() {
        let (none, bad) = ("InsufficientInstanceCapacity", "InvalidParameterValue");
        let new = "InvalidLaunchTemplateId.NotFound";
        for (codes, expected) in [
            (vec![none], Some(Class::Elsewhere)),
            (vec![bad, none], Some(Class::Elsewhere)),
            (vec![bad, new], Some(Class::Gone)),
            (vec![bad, bad], Some(Class::Fatal)),
            (vec!["UnauthorizedOperation"], Some(Class::Fatal)),
            (vec![], None),
        ] {
            let refused: Vec<_> = codes.iter().map(|code| refusal(code, None)).collect();
            assert_eq!(verdict(&refused), expected, "{codes:?}");
        }
    }

    #[test]
    fn a_quota_is_that_of_the_family_or_of_all_that_was_asked_for() {
        let types = ["m5.large", "c5.large", "g5.xlarge"].map(str::to_owned).to_vec();
        let asked = [Place { subnet: "s".to_owned(), zone: "a".to_owned(), types }];
        let families = |refused: &[Refusal]| used_up(refused, &asked).collect::<BTreeSet<_>>();
        let quota = "MaxSpotInstanceCountExceeded";
        assert_eq!(families(&[refusal(quota, Some("g5.xlarge"))]), BTreeSet::from([family("g4dn.xlarge")]));
        assert_eq!(families(&[refusal(quota, None)]).len(), 2);
        assert!(families(&[refusal("InsufficientInstanceCapacity", Some("m5.large"))]).is_empty());
    }
}
