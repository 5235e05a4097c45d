//! The index: an inode table with sorted directories, read in place. (Format text comes here.)
