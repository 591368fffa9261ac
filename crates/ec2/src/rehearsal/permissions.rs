//! The permissions that a dry run can only ask for: of the calls on a machine, of which there is none, and of
//! those without which a run goes on.

use super::super::Ec2;
use super::super::failure::{AwsError, allowed, call};
use trainspot_base::error::{Error, chain};
use trainspot_compute::checks::Check;

/// The id of a machine that does not exist. It is well formed, as EC2 looks at an id's form before it looks
/// at permissions.
const NO_MACHINE: &str = "i-00000000000000000";

/// The fewest results that EC2 takes for a page.
const FEWEST_RESULTS: i32 = 5;

impl Ec2 {
    /// Checks the permissions that no other check of a region has needed.
    pub(super) async fn rehearse_the_rest(&self, region: &str) -> Vec<Check> {
        let on_a_machine =
            async { tokio::join!(self.try_end(region), self.try_console(region), self.try_takeover(region)) };
        let without_one = async {
            tokio::join!(self.try_spot_requests(region), self.try_interfaces(region), self.try_prices(region))
        };
        let ((end, console, takeover), (requests, interfaces, prices)) =
            tokio::join!(on_a_machine, without_one);
        [end, requests, interfaces].into_iter().chain(prices).chain([console, takeover]).collect()
    }

    async fn try_end(&self, region: &str) -> Check {
        let request = self.clients.ec2(region).terminate_instances().instance_ids(NO_MACHINE);
        let request = request.skip_os_shutdown(true).dry_run(true);
        let ended = allowed("ec2:TerminateInstances", "cannot end a machine", async || {
            Ok(request.clone().send().await.map(drop)?)
        });
        on_a_machine(
            format!("{region}: end a machine"),
            ("ec2:TerminateInstances", ended.await),
            "each machine runs until it ends itself, ORPHAN_GRACE after the pipe's last word",
        )
    }

    async fn try_console(&self, region: &str) -> Check {
        let request = self.clients.ec2(region).get_console_output().instance_id(NO_MACHINE).dry_run(true);
        let console = allowed("ec2:GetConsoleOutput", "cannot read a machine's console", async || {
            Ok(request.clone().send().await.map(drop)?)
        });
        on_a_machine(
            format!("{region}: read a machine's console"),
            ("ec2:GetConsoleOutput", console.await),
            "the log does not show the console of a machine that does not boot",
        )
    }

    async fn try_takeover(&self, region: &str) -> Check {
        const TAKEOVER_ACTION: &str = "ec2-instance-connect:SendSSHPublicKey";
        let client = self.clients.instance_connect(region);
        let sent = async {
            let key = self.client.public_openssh()?;
            let request = client.send_ssh_public_key().instance_id(NO_MACHINE).instance_os_user("ec2-user");
            let request = request.ssh_public_key(key);
            call(TAKEOVER_ACTION, "cannot take over a machine", async || {
                Ok(request.clone().send().await.map(drop)?)
            })
            .await
        };
        on_a_machine(
            format!("{region}: take over the machine of a killed pipe"),
            (TAKEOVER_ACTION, sent.await),
            "the machine of a killed pipe is ended, and its training begins again",
        )
    }

    async fn try_spot_requests(&self, region: &str) -> Check {
        let client = self.clients.ec2(region);
        let requests = call("ec2:DescribeSpotInstanceRequests", "cannot look at spot requests", async || {
            Ok(client.describe_spot_instance_requests().max_results(FEWEST_RESULTS).send().await.map(drop)?)
        });
        optional(
            format!("{region}: see an interruption in the spot request"),
            requests.await,
            "an interruption is seen by the notice on the machine alone",
        )
    }

    async fn try_interfaces(&self, region: &str) -> Check {
        let client = self.clients.ec2(region);
        let what = "cannot look for the pipe's own address";
        let interfaces = call("ec2:DescribeNetworkInterfaces", what, async || {
            Ok(client.describe_network_interfaces().max_results(FEWEST_RESULTS).send().await.map(drop)?)
        });
        optional(
            format!("{region}: find the pipe among the VPC's addresses"),
            interfaces.await,
            "a pipe that runs inside the VPC needs SSH_ADDRESS: 'private'",
        )
    }

    /// The prices of spot machines, and of those on demand where there is a price list.
    async fn try_prices(&self, region: &str) -> Vec<Check> {
        let client = self.clients.ec2(region);
        let spot = call("ec2:DescribeSpotPriceHistory", "cannot read spot prices", async || {
            Ok(client.describe_spot_price_history().max_results(FEWEST_RESULTS).send().await.map(drop)?)
        });
        let without = "its price is not known, and MAX_COST has no effect on it";
        let spot = optional(
            format!("{region}: read spot prices"),
            spot.await,
            &format!("a spot machine is rented all the same; {without}"),
        );
        let Some(list) = self.clients.pricing(region) else { return vec![spot] };
        let on_demand = call("pricing:GetProducts", "cannot read on-demand prices", async || {
            Ok(list.get_products().service_code("AmazonEC2").max_results(1).send().await.map(drop)?)
        });
        let on_demand = optional(
            format!("{region}: read on-demand prices"),
            on_demand.await,
            &format!("a machine on demand is rented all the same; {without}"),
        );
        vec![spot, on_demand]
    }
}

/// The check of a call without which a run succeeds, so that no failure of the call fails the check.
/// `without` says what a run without the call is like.
fn optional(subject: String, done: Result<(), AwsError>, without: &str) -> Check {
    match done {
        Ok(()) => Check::from_result(subject, Ok(())),
        Err(failure) if failure.is_denied() => {
            let action = failure.missing_action();
            Check::unverified(
                subject,
                format!("{action} is not allowed, and is optional: without it, {without}"),
            )
        }
        Err(failure) => Check::unverified(
            subject,
            format!("{}; it is optional: without it, {without}", chain(&Error::from(failure))),
        ),
    }
}

/// The check of a call on a machine, made for a machine that does not exist. Only a call that AWS allows
/// proves a permission: AWS may look for the machine before it looks at permissions, and a policy that asks
/// for the tags of a run denies what is done to a machine that has none. AWS's documentation does not say
/// which comes first. `without` says what a run without the permission is like.
fn on_a_machine(subject: String, (action, done): (&str, Result<(), AwsError>), without: &str) -> Check {
    match done {
        Ok(()) => Check::from_result(subject, Ok(())),
        Err(failure) => {
            let said = failure.code().map_or_else(|| failure.to_string(), str::to_owned);
            Check::unverified(
                subject,
                format!(
                    "cannot be told before there is a machine: for a machine that does not exist, AWS answered {said} to {action}, which may be so whether or not the policy allows that action for the run's machines. Without the permission, {without}"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_failure_of_an_optional_call_fails_a_dry_run() {
        for (code, words) in [
            ("UnauthorizedOperation", "ec2:X is not allowed, and is optional: without it, all is well"),
            ("ServiceUnavailable", "ServiceUnavailable: no; it is optional: without it, all is well"),
        ] {
            let failure = AwsError::in_answer(code, "no").during("ec2:X", "cannot do X");
            let check = optional("do X".to_owned(), Err(failure), "all is well");
            assert!(!check.is_failed() && check.text().contains(words), "{}", check.text());
        }
    }
}
