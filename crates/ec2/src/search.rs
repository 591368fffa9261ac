//! The search for a machine at EC2: what each attempt of its rounds asks for, and what the answers mean.

use super::failure::{AwsError, ErrorClass, SPOT_QUOTA};
use super::fleet::{FleetAnswer, FleetRequest, PoolRefusal};
use super::fleet_refusals::{combined_class, first_failure, used_up_families};
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

/// How many answers may say that a template or group that was just made does not exist.
const NOT_FOUND_RETRIES: u32 = 3;
/// The wait before EC2 is asked again after such an answer.
const NOT_FOUND_RETRY_WAIT: Duration = Duration::from_secs(3);

/// One search for a machine.
struct MachineSearch<'a> {
    ec2: &'a Ec2,
    launch_request: &'a LaunchRequest,
    plan: &'a Plan,
    refusals: Refusals,
    /// Quotas, by region, that are used up as far as this round knows.
    used_up_quotas: BTreeSet<(usize, CapacityType, QuotaFamily)>,
    /// Quotas, by region, that are too small for any machine, so that waiting is of no use.
    zero_quotas: BTreeSet<(usize, CapacityType, QuotaFamily)>,
    /// The final errors, by region and capacity type: these are not asked for again.
    hopeless: BTreeMap<(usize, CapacityType), Error>,
    /// Whether this round has asked for anything.
    has_asked: bool,
    /// How many answers said that a template or group does not exist.
    not_found_count: u32,
}

/// The result of one attempt.
enum AttemptResult {
    Machine(Machine),
    Nothing,
    /// No machine, but the next try asks for others: a quota was used up that other families do not share, or
    /// a template was not found.
    TryOthers,
}

impl Ec2 {
    /// See [`trainspot_compute::Compute::launch`].
    pub(super) async fn search(&self, launch_request: &LaunchRequest) -> Result<Machine> {
        let mut search = MachineSearch {
            ec2: self,
            launch_request,
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
        let rounds = if self.launch_request.spot_now {
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
        // A final error has better advice than the list of refusals.
        let best = if ended == NoMachine::Hopeless && self.zero_quotas.is_empty() {
            self.hopeless.pop_first().map(|(_, why)| why)
        } else {
            None
        };
        Err(best.unwrap_or(told))
    }

    /// One attempt. It fails where a region will not give a machine of this capacity type, however often it
    /// is asked.
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
        let candidates = candidates(plan, (history, capacity), &self.launch_request.avoid, &used_up_quotas);
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

    /// Asks for one fleet, and judges its answer.
    async fn ask_fleet(
        &mut self,
        index: usize,
        capacity: CapacityType,
        candidates: Vec<SubnetTypes>,
    ) -> Result<AttemptResult, AwsError> {
        let plan = &self.plan.regions[index];
        let request = FleetRequest::new(&self.ec2.aws, capacity, candidates, plan.machine.by_attributes);
        let template = match self.ec2.template(plan, capacity, self.launch_request).await {
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

    /// Sends the request in a task of its own, which awaits the answer even if this search is dropped.
    async fn send_in_task(
        &self,
        plan: &RegionPlan,
        request: FleetRequest,
        template: String,
    ) -> Result<FleetAnswer, AwsError> {
        let mut launches = Arc::clone(&self.ec2.launches).lock_owned().await;
        let ec2 = (
            Arc::clone(&self.ec2.clients),
            self.ec2.tags(&self.launch_request.run),
            self.launch_request.run.clone(),
        );
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
                // EC2 is eventually consistent: the template may be too new. From the second time on it may
                // be gone.
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

    /// The families whose spot quota is too small for the request, however long the pipe waits: no spot
    /// machine of theirs runs that could end. EC2 refuses in the same words where one does.
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
            // The quota counts as used up by another machine, whose end is waited for.
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

    /// Looks for a machine by its tags after a request without an answer, which may have launched one.
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

    /// The machine of a launch without an answer, if it exists. Its host key tells it from those of earlier
    /// tries of the step.
    async fn adopt(&self, region: &str) -> Result<Option<Machine>, AwsError> {
        let mut launches = self.ec2.launches.lock().await;
        let (run, is_new) =
            (&self.launch_request.run, |instance: &Ec2Instance| !launches.knows(&instance.id));
        let instance =
            machines::find_by_host_key(&self.ec2.clients, region, run, &self.ec2.host_key, is_new).await?;
        if let Some(instance) = &instance {
            launches.add(run, instance);
        }
        Ok(instance.as_ref().map(Ec2::machine))
    }

    /// Logs a refusal; only for debugging in a search for spot alone, which is repeated and mostly in vain.
    fn log_refusal(&self, refusal: &str) {
        if self.launch_request.spot_now {
            debug!("{refusal}");
        } else {
            warn!("{refusal}");
        }
    }

    async fn with_leftovers(&self, error: Error) -> Error {
        let (run, launches) = (&self.launch_request.run, self.ec2.launches.lock().await);
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
                // Another region or capacity type may still have a machine.
                Err(failure) => {
                    self.hopeless.insert((region, capacity), failure.into());
                    return None;
                }
            }
        }
    }
}
