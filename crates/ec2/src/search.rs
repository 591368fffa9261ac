//! The search for a machine at EC2: what each attempt of its rounds asks for, and what the answers mean.

use super::failure::{Class, Failure, SPOT_QUOTA};
use super::fleet::{Answer, Refusal, Request};
use super::machines::Seen;
use super::plan::{Plan, RegionPlan};
use super::pools::{Family, Mode, Pass, Place, batches, family, places};
use super::refusals::Refusals;
use super::rounds::{Market, NoMachine, Rounds};
use super::tags::{HOST_KEY, RUN, USER};
use super::{Ec2, machines};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use trainspot_base::error::{Error, Result};
use trainspot_compute::aws::Purchase;
use trainspot_compute::{LaunchRequest, Machine};

/// How often something that was just made may be unknown to the next call.
const GONE: u32 = 3;
const GONE_WAIT: Duration = Duration::from_secs(3);

/// One search.
struct Search<'a> {
    ec2: &'a Ec2,
    order: &'a LaunchRequest,
    plan: &'a Plan,
    refusals: Refusals,
    /// Quotas that are used up in a region, as far as this round knows.
    full: BTreeSet<(usize, Mode, Family)>,
    /// Those of them that allow nothing at all.
    shut: BTreeSet<(usize, Mode, Family)>,
    /// Why a region, or a way to pay there, is not asked again.
    hopeless: BTreeMap<(usize, Mode), Error>,
    /// Whether anything was asked for in this round.
    asked: bool,
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
    /// See [`trainspot_compute::Compute::launch`].
    pub(super) async fn search(&self, order: &LaunchRequest) -> Result<Machine> {
        let mut search = Search {
            ec2: self,
            order,
            plan: self.plan().await?,
            refusals: Refusals::default(),
            full: BTreeSet::new(),
            shut: BTreeSet::new(),
            hopeless: BTreeMap::new(),
            asked: false,
            gone: 0,
        };
        match search.run().await {
            Ok(machine) => Ok(machine),
            Err(error) => Err(search.with_leftovers(error).await),
        }
    }
}

impl Search<'_> {
    async fn run(&mut self) -> Result<Machine> {
        let start = Instant::now();
        let (aws, regions) = (&self.ec2.aws, self.plan.regions.len());
        let rounds = if self.order.spot_now {
            let (purchase, wait) = (Purchase::Spot, Duration::ZERO);
            Rounds { purchase, regions, spot_wait: wait, capacity_wait: wait }
        } else {
            let (spot_wait, capacity_wait) = (aws.spot_wait, aws.capacity_wait);
            Rounds { purchase: aws.purchase, regions, spot_wait, capacity_wait }
        };
        let ended = match rounds.run(self).await {
            Ok(machine) => return Ok(machine),
            Err(ended) => ended,
        };
        let told = self.refusals.error(start.elapsed());
        // Where nothing but one reason stands in the way, it has the better advice.
        let best = if ended == NoMachine::Hopeless && self.shut.is_empty() {
            self.hopeless.pop_first().map(|(_, why)| why)
        } else {
            None
        };
        Err(best.unwrap_or(told))
    }

    /// One attempt. It fails where nothing will be had of a region by this way to pay, however often it is
    /// asked.
    async fn try_once(&mut self, pass: Pass, mode: Mode, index: usize) -> Result<Found, Failure> {
        let plan = &self.plan.regions[index];
        let full = self.full.iter().filter(|(region, ..)| *region == index);
        let full = full.map(|(_, mode, family)| (*mode, *family)).collect();
        let places = places(plan, (pass, mode), &self.order.avoid, &full);
        if places.is_empty() || self.hopeless.contains_key(&(index, mode)) {
            return Ok(Found::Nothing);
        }
        self.asked = true;
        if self.ec2.made.lock().await.unanswered.contains(&plan.region)
            && let Some(machine) = self.adopt(&plan.region).await?
        {
            return Ok(Found::Machine(machine));
        }
        for places in batches(&places, plan.machine.by_attributes) {
            match self.fleet(index, mode, places).await? {
                Found::Nothing => {}
                found => return Ok(found),
            }
        }
        Ok(Found::Nothing)
    }

    /// One fleet, and what its answer means.
    async fn fleet(&mut self, index: usize, mode: Mode, places: Vec<Place>) -> Result<Found, Failure> {
        let plan = &self.plan.regions[index];
        let request = Request::new(&self.ec2.aws, mode, places, plan.machine.by_attributes);
        let template = match self.ec2.template(plan, mode, self.order).await {
            Ok(template) => template,
            Err(failure) => {
                return self.refused(index, &request, vec![Refusal { pool: None, failure }]).await;
            }
        };
        match self.ask(plan, request.clone(), template).await {
            Ok(Answer { launched, refused }) => match launched.into_iter().next() {
                Some(launched) => Ok(Found::Machine(Ec2::machine_in(&launched.id, &launched.pool, mode))),
                None => self.refused(index, &request, refused).await,
            },
            Err(failure) if failure.class() == Class::Transient => self.unknown(plan, mode, failure).await,
            Err(failure) => self.refused(index, &request, vec![Refusal { pool: None, failure }]).await,
        }
    }

    /// Asks in a task of its own: a request that was sent is followed to its answer, also if this search is
    /// dropped.
    async fn ask(&self, plan: &RegionPlan, request: Request, template: String) -> Result<Answer, Failure> {
        let mut made = Arc::clone(&self.ec2.made).lock_owned().await;
        let ec2 = (Arc::clone(&self.ec2.cloud), self.ec2.tags(&self.order.run), self.order.run.clone());
        let ((cloud, tags, run), plan) = (ec2, plan.clone());
        let tags = tags.with(HOST_KEY, &self.ec2.host_key).with(USER, &plan.image.user);
        let asking = tokio::spawn(async move {
            let answer = request.send(&cloud, &plan, &template, &tags).await;
            match &answer {
                Ok(answer) => {
                    made.launched
                        .extend(answer.launched.iter().map(|launched| (run.clone(), launched.clone())));
                }
                Err(failure) if failure.class() == Class::Transient => {
                    made.unanswered.insert(plan.region);
                }
                Err(_) => {}
            }
            answer
        });
        asking.await.unwrap_or_else(|_| Err(Failure::incomplete("machine")))
    }

    async fn refused(
        &mut self,
        index: usize,
        request: &Request,
        refused: Vec<Refusal>,
    ) -> Result<Found, Failure> {
        let (region, mode) = (&self.plan.regions[index].region, request.mode);
        let known = self.full.len();
        self.full.extend(used_up(&refused, &request.places).map(|family| (index, mode, family)));
        let shut = refused.iter().filter(|refusal| refusal.failure.is_quota_of_none());
        self.shut.extend(used_up(shut, &request.places).map(|family| (index, mode, family)));
        let too_small = self.too_small(index, request, &refused).await;
        self.shut.extend(too_small);
        for line in self.refusals.add(region, mode, &refused) {
            self.tell(&line);
        }
        match verdict(&refused) {
            Some(Class::Gone) if self.gone < GONE => {
                // EC2's answers agree with each other only in the end; later, it may indeed be gone.
                if self.gone > 0 {
                    self.ec2.forget_template(region, mode).await;
                }
                self.gone += 1;
                sleep(GONE_WAIT).await;
                Ok(Found::TryOthers)
            }
            Some(Class::Gone | Class::Fatal) => Err(first(region, refused)),
            _ if self.full.len() > known => Ok(Found::TryOthers),
            _ => Ok(Found::Nothing),
        }
    }

    /// The families whose spot quota is too small for what is asked for, however long one waits: no spot
    /// machine of theirs runs that could end. EC2 refuses with the same words, without a number, where one
    /// does.
    async fn too_small(
        &mut self,
        index: usize,
        request: &Request,
        refused: &[Refusal],
    ) -> Vec<(usize, Mode, Family)> {
        let spot = refused.iter().filter(|refusal| refusal.failure.is(&[SPOT_QUOTA]));
        let families: BTreeSet<Family> = used_up(spot, &request.places).collect();
        if families.is_empty() {
            return Vec::new();
        }
        let region = &self.plan.regions[index].region;
        let running = match machines::spot_types(&self.ec2.cloud, region).await {
            Ok(types) => types.iter().map(|name| family(name)).collect::<BTreeSet<_>>(),
            // Then it is waited for, as for a quota that another machine uses up.
            Err(failure) => {
                debug!("nobody knows which spot machines use up the quota in {region}: {failure}");
                return Vec::new();
            }
        };
        let unused = families.difference(&running).copied();
        unused
            .inspect(|family| self.refusals.add_small_quota(region, *family))
            .map(|family| (index, request.mode, family))
            .collect()
    }

    /// No answer came, so nobody knows whether there is a machine: it is looked for by its tags.
    async fn unknown(&mut self, plan: &RegionPlan, mode: Mode, failure: Failure) -> Result<Found, Failure> {
        for line in self.refusals.add(&plan.region, mode, &[Refusal { pool: None, failure }]) {
            self.tell(&line);
        }
        Ok(self.adopt(&plan.region).await?.map_or(Found::Nothing, Found::Machine))
    }

    /// The machine that this process launched without knowing it. Its host key tells it from those of earlier
    /// tries.
    async fn adopt(&self, region: &str) -> Result<Option<Machine>, Failure> {
        let mut made = self.ec2.made.lock().await;
        let (run, is_new) = (&self.order.run, |seen: &Seen| !made.knows(&seen.id));
        let seen = machines::of_key(&self.ec2.cloud, region, run, &self.ec2.host_key, is_new).await?;
        if let Some(seen) = &seen {
            made.add(run, seen);
        }
        Ok(seen.as_ref().map(Ec2::machine))
    }

    /// Tells of a refusal. A look for spot in passing is made again and again, and mostly in vain.
    fn tell(&self, refusal: &str) {
        if self.order.spot_now {
            debug!("{refusal}");
        } else {
            warn!("{refusal}");
        }
    }

    async fn with_leftovers(&self, error: Error) -> Error {
        let (run, made) = (&self.order.run, self.ec2.made.lock().await);
        made.unanswered.iter().fold(error, |error, region| {
            error.leaves(format!(
                "perhaps a machine in {region}, as AWS did not answer; it ends itself within BOOT_TIMEOUT: \
                 aws ec2 describe-instances --region {region} --filters Name=tag:{RUN},Values={run}"
            ))
        })
    }
}

impl Market for Search<'_> {
    type Machine = Machine;

    fn begin_round(&mut self) {
        self.full.clone_from(&self.shut);
        self.asked = false;
    }

    fn has_asked(&self) -> bool {
        self.asked
    }

    async fn attempt(&mut self, pass: Pass, mode: Mode, region: usize) -> Option<Machine> {
        loop {
            match self.try_once(pass, mode, region).await {
                Ok(Found::Machine(machine)) => return Some(machine),
                Ok(Found::TryOthers) => {}
                Ok(Found::Nothing) => return None,
                // Another region, or another way to pay, may do all the same.
                Err(failure) => {
                    self.hopeless.insert((region, mode), failure.into());
                    return None;
                }
            }
        }
    }
}

fn first(region: &str, refused: Vec<Refusal>) -> Failure {
    let first = refused.into_iter().next().map(|refusal| refusal.failure);
    first
        .unwrap_or_else(|| Failure::incomplete("machine"))
        .or_during("ec2:CreateFleet", &format!("cannot get a machine in {region}"))
}

/// What refusals mean together: there is hope as long as one of them leaves some.
fn verdict(refused: &[Refusal]) -> Option<Class> {
    let despair = |class: Class| match class {
        Class::Elsewhere | Class::OtherFamily | Class::Transient => 0,
        Class::Gone => 1,
        Class::Fatal => 2,
    };
    refused.iter().map(|refusal| refusal.failure.class()).min_by_key(|class| despair(*class))
}

/// The families whose quota is used up; all that were asked for, where AWS does not say which.
fn used_up<'a>(
    refused: impl IntoIterator<Item = &'a Refusal>,
    asked: &[Place],
) -> impl Iterator<Item = Family> {
    let quota = refused.into_iter().filter(|refusal| refusal.failure.class() == Class::OtherFamily);
    quota.flat_map(|refusal| match &refusal.pool {
        Some(pool) => vec![family(&pool.instance_type)],
        None => asked.iter().flat_map(|place| place.types.iter().map(|name| family(name))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainspot_compute::Pool;

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
