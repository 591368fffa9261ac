//! The search for a machine at EC2: what each attempt of its rounds asks for, and what the answers mean.

use super::failure::{AwsError, ErrorClass, SPOT_QUOTA};
use super::fleet::{FleetAnswer, FleetRequest, PoolRefusal};
use super::machines::Ec2Instance;
use super::plan::{Plan, RegionPlan};
use super::pools::{CapacityType, PoolHistory, QuotaFamily, SubnetTypes, batches, candidates, quota_family};
use super::refusals::Refusals;
use super::rounds::{Market, NoMachine, Rounds};
use super::tags::{HOST_KEY_TAG, RUN_TAG, USER_TAG};
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
const NOT_FOUND_RETRIES: u32 = 3;
const NOT_FOUND_RETRY_WAIT: Duration = Duration::from_secs(3);

/// One search.
struct MachineSearch<'a> {
    ec2: &'a Ec2,
    order: &'a LaunchRequest,
    plan: &'a Plan,
    refusals: Refusals,
    /// Quotas that are used up in a region, as far as this round knows.
    used_up_quotas: BTreeSet<(usize, CapacityType, QuotaFamily)>,
    /// Those of them that allow nothing at all.
    zero_quotas: BTreeSet<(usize, CapacityType, QuotaFamily)>,
    /// Why a region, or a way to pay there, is not asked again.
    hopeless: BTreeMap<(usize, CapacityType), Error>,
    /// Whether anything was asked for in this round.
    has_asked: bool,
    /// How often something that was just made was not known yet.
    not_found_count: u32,
}

/// What one attempt came to.
enum AttemptResult {
    Machine(Machine),
    Nothing,
    /// A quota is used up that other families do not share.
    TryOthers,
}

impl Ec2 {
    /// See [`trainspot_compute::Compute::launch`].
    pub(super) async fn search(&self, order: &LaunchRequest) -> Result<Machine> {
        let mut search = MachineSearch {
            ec2: self,
            order,
            plan: self.plan().await?,
            refusals: Refusals::default(),
            used_up_quotas: BTreeSet::new(),
            zero_quotas: BTreeSet::new(),
            hopeless: BTreeMap::new(),
            has_asked: false,
            not_found_count: 0,
        };
        match search.run().await {
            Ok(machine) => Ok(machine),
            Err(error) => Err(search.with_leftovers(error).await),
        }
    }
}

impl MachineSearch<'_> {
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
        let best = if ended == NoMachine::Hopeless && self.zero_quotas.is_empty() {
            self.hopeless.pop_first().map(|(_, why)| why)
        } else {
            None
        };
        Err(best.unwrap_or(told))
    }

    /// One attempt. It fails where nothing will be had of a region by this way to pay, however often it is
    /// asked.
    async fn try_once(
        &mut self,
        history: PoolHistory,
        capacity: CapacityType,
        index: usize,
    ) -> Result<AttemptResult, AwsError> {
        let plan = &self.plan.regions[index];
        let used_up_quotas = self.used_up_quotas.iter().filter(|(region, ..)| *region == index);
        let used_up_quotas =
            used_up_quotas.map(|(_, capacity, quota_family)| (*capacity, *quota_family)).collect();
        let candidates = candidates(plan, (history, capacity), &self.order.avoid, &used_up_quotas);
        if candidates.is_empty() || self.hopeless.contains_key(&(index, capacity)) {
            return Ok(AttemptResult::Nothing);
        }
        self.has_asked = true;
        if self.ec2.launches.lock().await.unanswered.contains(&plan.region)
            && let Some(machine) = self.adopt(&plan.region).await?
        {
            return Ok(AttemptResult::Machine(machine));
        }
        for candidates in batches(&candidates, plan.machine.by_attributes) {
            match self.ask_fleet(index, capacity, candidates).await? {
                AttemptResult::Nothing => {}
                found => return Ok(found),
            }
        }
        Ok(AttemptResult::Nothing)
    }

    /// One fleet, and what its answer means.
    async fn ask_fleet(
        &mut self,
        index: usize,
        capacity: CapacityType,
        candidates: Vec<SubnetTypes>,
    ) -> Result<AttemptResult, AwsError> {
        let plan = &self.plan.regions[index];
        let request = FleetRequest::new(&self.ec2.aws, capacity, candidates, plan.machine.by_attributes);
        let template = match self.ec2.template(plan, capacity, self.order).await {
            Ok(template) => template,
            Err(failure) => {
                return self.refused(index, &request, vec![PoolRefusal { pool: None, failure }]).await;
            }
        };
        match self.send_in_task(plan, request.clone(), template).await {
            Ok(FleetAnswer { launched, refused }) => match launched.into_iter().next() {
                Some(launched) => {
                    Ok(AttemptResult::Machine(Ec2::machine_in(&launched.id, &launched.pool, capacity)))
                }
                None => self.refused(index, &request, refused).await,
            },
            Err(failure) if failure.class() == ErrorClass::Transient => {
                self.on_no_answer(plan, capacity, failure).await
            }
            Err(failure) => self.refused(index, &request, vec![PoolRefusal { pool: None, failure }]).await,
        }
    }

    /// Asks in a task of its own: a request that was sent is followed to its answer, also if this search is
    /// dropped.
    async fn send_in_task(
        &self,
        plan: &RegionPlan,
        request: FleetRequest,
        template: String,
    ) -> Result<FleetAnswer, AwsError> {
        let mut launches = Arc::clone(&self.ec2.launches).lock_owned().await;
        let ec2 = (Arc::clone(&self.ec2.clients), self.ec2.tags(&self.order.run), self.order.run.clone());
        let ((clients, tags, run), plan) = (ec2, plan.clone());
        let tags = tags.with(HOST_KEY_TAG, &self.ec2.host_key).with(USER_TAG, &plan.image.user);
        let asking = tokio::spawn(async move {
            let answer = request.send(&clients, &plan, &template, &tags).await;
            match &answer {
                Ok(answer) => {
                    launches
                        .launched
                        .extend(answer.launched.iter().map(|launched| (run.clone(), launched.clone())));
                }
                Err(failure) if failure.class() == ErrorClass::Transient => {
                    launches.unanswered.insert(plan.region);
                }
                Err(_) => {}
            }
            answer
        });
        asking.await.unwrap_or_else(|_| Err(AwsError::incomplete("machine")))
    }

    async fn refused(
        &mut self,
        index: usize,
        request: &FleetRequest,
        refused: Vec<PoolRefusal>,
    ) -> Result<AttemptResult, AwsError> {
        let (region, capacity) = (&self.plan.regions[index].region, request.capacity);
        let known = self.used_up_quotas.len();
        self.used_up_quotas.extend(
            used_up_families(&refused, &request.candidates)
                .map(|quota_family| (index, capacity, quota_family)),
        );
        let zero_quotas = refused.iter().filter(|refusal| refusal.failure.is_zero_quota());
        self.zero_quotas.extend(
            used_up_families(zero_quotas, &request.candidates)
                .map(|quota_family| (index, capacity, quota_family)),
        );
        let too_small_quotas = self.too_small_quotas(index, request, &refused).await;
        self.zero_quotas.extend(too_small_quotas);
        for line in self.refusals.add(region, capacity, &refused) {
            self.log_refusal(&line);
        }
        match combined_class(&refused) {
            Some(ErrorClass::NotFound) if self.not_found_count < NOT_FOUND_RETRIES => {
                // EC2's answers agree with each other only in the end; later, it may indeed be gone.
                if self.not_found_count > 0 {
                    self.ec2.forget_template(region, capacity).await;
                }
                self.not_found_count += 1;
                sleep(NOT_FOUND_RETRY_WAIT).await;
                Ok(AttemptResult::TryOthers)
            }
            Some(ErrorClass::NotFound | ErrorClass::Fatal) => Err(first_failure(region, refused)),
            _ if self.used_up_quotas.len() > known => Ok(AttemptResult::TryOthers),
            _ => Ok(AttemptResult::Nothing),
        }
    }

    /// The families whose spot quota is too small for what is asked for, however long one waits: no spot
    /// machine of theirs runs that could end. EC2 refuses with the same words, without a number, where one
    /// does.
    async fn too_small_quotas(
        &mut self,
        index: usize,
        request: &FleetRequest,
        refused: &[PoolRefusal],
    ) -> Vec<(usize, CapacityType, QuotaFamily)> {
        let spot = refused.iter().filter(|refusal| refusal.failure.is(&[SPOT_QUOTA]));
        let families: BTreeSet<QuotaFamily> = used_up_families(spot, &request.candidates).collect();
        if families.is_empty() {
            return Vec::new();
        }
        let region = &self.plan.regions[index].region;
        let running = match machines::spot_types(&self.ec2.clients, region).await {
            Ok(types) => types.iter().map(|name| quota_family(name)).collect::<BTreeSet<_>>(),
            // Then it is waited for, as for a quota that another machine uses up.
            Err(failure) => {
                debug!("nobody knows which spot machines use up the quota in {region}: {failure}");
                return Vec::new();
            }
        };
        let unused = families.difference(&running).copied();
        unused
            .inspect(|quota_family| self.refusals.add_small_quota(region, *quota_family))
            .map(|quota_family| (index, request.capacity, quota_family))
            .collect()
    }

    /// No answer came, so nobody knows whether there is a machine: it is looked for by its tags.
    async fn on_no_answer(
        &mut self,
        plan: &RegionPlan,
        capacity: CapacityType,
        failure: AwsError,
    ) -> Result<AttemptResult, AwsError> {
        for line in self.refusals.add(&plan.region, capacity, &[PoolRefusal { pool: None, failure }]) {
            self.log_refusal(&line);
        }
        Ok(self.adopt(&plan.region).await?.map_or(AttemptResult::Nothing, AttemptResult::Machine))
    }

    /// The machine that this process launched without knowing it. Its host key tells it from those of earlier
    /// tries.
    async fn adopt(&self, region: &str) -> Result<Option<Machine>, AwsError> {
        let mut launches = self.ec2.launches.lock().await;
        let (run, is_new) = (&self.order.run, |instance: &Ec2Instance| !launches.knows(&instance.id));
        let instance =
            machines::find_by_host_key(&self.ec2.clients, region, run, &self.ec2.host_key, is_new).await?;
        if let Some(instance) = &instance {
            launches.add(run, instance);
        }
        Ok(instance.as_ref().map(Ec2::machine))
    }

    /// Tells of a refusal. A look for spot in passing is made again and again, and mostly in vain.
    fn log_refusal(&self, refusal: &str) {
        if self.order.spot_now {
            debug!("{refusal}");
        } else {
            warn!("{refusal}");
        }
    }

    async fn with_leftovers(&self, error: Error) -> Error {
        let (run, launches) = (&self.order.run, self.ec2.launches.lock().await);
        launches.unanswered.iter().fold(error, |error, region| {
            error.leaves(format!(
                "perhaps a machine in {region}, as AWS did not answer; it ends itself within BOOT_TIMEOUT: \
                 aws ec2 describe-instances --region {region} --filters Name=tag:{RUN_TAG},Values={run}"
            ))
        })
    }
}

impl Market for MachineSearch<'_> {
    type Machine = Machine;

    fn begin_round(&mut self) {
        self.used_up_quotas.clone_from(&self.zero_quotas);
        self.has_asked = false;
    }

    fn has_asked(&self) -> bool {
        self.has_asked
    }

    async fn attempt(
        &mut self,
        history: PoolHistory,
        capacity: CapacityType,
        region: usize,
    ) -> Option<Machine> {
        loop {
            match self.try_once(history, capacity, region).await {
                Ok(AttemptResult::Machine(machine)) => return Some(machine),
                Ok(AttemptResult::TryOthers) => {}
                Ok(AttemptResult::Nothing) => return None,
                // Another region, or another way to pay, may do all the same.
                Err(failure) => {
                    self.hopeless.insert((region, capacity), failure.into());
                    return None;
                }
            }
        }
    }
}

fn first_failure(region: &str, refused: Vec<PoolRefusal>) -> AwsError {
    let first_failure = refused.into_iter().next().map(|refusal| refusal.failure);
    first_failure
        .unwrap_or_else(|| AwsError::incomplete("machine"))
        .or_during("ec2:CreateFleet", &format!("cannot get a machine in {region}"))
}

/// What refusals mean together: there is hope as long as one of them leaves some.
fn combined_class(refused: &[PoolRefusal]) -> Option<ErrorClass> {
    let despair = |class: ErrorClass| match class {
        ErrorClass::TryElsewhere | ErrorClass::TryOtherFamily | ErrorClass::Transient => 0,
        ErrorClass::NotFound => 1,
        ErrorClass::Fatal => 2,
    };
    refused.iter().map(|refusal| refusal.failure.class()).min_by_key(|class| despair(*class))
}

/// The families whose quota is used up; all that were asked for, where AWS does not say which.
fn used_up_families<'a>(
    refused: impl IntoIterator<Item = &'a PoolRefusal>,
    candidates: &[SubnetTypes],
) -> impl Iterator<Item = QuotaFamily> {
    let quota = refused.into_iter().filter(|refusal| refusal.failure.class() == ErrorClass::TryOtherFamily);
    quota.flat_map(|refusal| match &refusal.pool {
        Some(pool) => vec![quota_family(&pool.instance_type)],
        None => candidates
            .iter()
            .flat_map(|candidate| candidate.types.iter().map(|name| quota_family(name)))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainspot_compute::Pool;

    fn refusal(code: &str, kind: Option<&str>) -> PoolRefusal {
        let pool = kind.map(|kind| Pool { zone: "a".to_owned(), instance_type: kind.to_owned() });
        PoolRefusal { pool, failure: AwsError::told(code, "no") }
    }

    #[test]
    fn one_refusal_that_leaves_hope_is_enough() {
        let (none, bad) = ("InsufficientInstanceCapacity", "InvalidParameterValue");
        let new = "InvalidLaunchTemplateId.NotFound";
        for (codes, expected) in [
            (vec![none], Some(ErrorClass::TryElsewhere)),
            (vec![bad, none], Some(ErrorClass::TryElsewhere)),
            (vec![bad, new], Some(ErrorClass::NotFound)),
            (vec![bad, bad], Some(ErrorClass::Fatal)),
            (vec!["UnauthorizedOperation"], Some(ErrorClass::Fatal)),
            (vec![], None),
        ] {
            let refused: Vec<_> = codes.iter().map(|code| refusal(code, None)).collect();
            assert_eq!(combined_class(&refused), expected, "{codes:?}");
        }
    }

    #[test]
    fn a_quota_is_that_of_the_family_or_of_all_that_was_asked_for() {
        let types = ["m5.large", "c5.large", "g5.xlarge"].map(str::to_owned).to_vec();
        let has_asked = [SubnetTypes { subnet: "s".to_owned(), zone: "a".to_owned(), types }];
        let families =
            |refused: &[PoolRefusal]| used_up_families(refused, &has_asked).collect::<BTreeSet<_>>();
        let quota = "MaxSpotInstanceCountExceeded";
        assert_eq!(
            families(&[refusal(quota, Some("g5.xlarge"))]),
            BTreeSet::from([quota_family("g4dn.xlarge")])
        );
        assert_eq!(families(&[refusal(quota, None)]).len(), 2);
        assert!(families(&[refusal("InsufficientInstanceCapacity", Some("m5.large"))]).is_empty());
    }
}
