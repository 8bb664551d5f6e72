//! COPY and ADD: which entries of the source trees are meant, and what they become in the destination.
