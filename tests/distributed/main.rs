//! One run in several processes: the same numbers as in one.
//!
//! Most tests run the processes as threads, each with a device of its own, which exchange through
//! memory. What only processes can show (launchers, signals, a process that dies) runs under
//! `mpiexec`, if `UDASS_MPI` lists the folders of MPI installations, separated by colons:
//!
//!     python3 -m venv target/mpi && target/mpi/bin/pip install mpich
//!     UDASS_MPI=$PWD/target/mpi cargo test --release --test distributed

mod equal;
mod fabric;
mod launched;
mod runs;
#[allow(dead_code, reason = "shared with tests/runs")]
#[path = "../runs/support.rs"]
mod support;
