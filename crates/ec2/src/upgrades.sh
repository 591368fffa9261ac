# Keeps the system from upgrading itself: that holds apt's locks for minutes at the first boot, just when the startup script
# installs packages, and may exchange a driver under the training. Nothing is waited for, as this runs while the system starts.
units='apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service unattended-upgrades.service'
systemctl mask --runtime $units
systemctl stop --no-block $units
[ ! -d /etc/apt/apt.conf.d ] || echo 'DPkg::Lock::Timeout "600";' >/etc/apt/apt.conf.d/90trainspot
true
