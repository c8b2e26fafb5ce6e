//! taskmaster-master
