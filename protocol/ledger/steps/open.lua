-- Creates a job that is about to be fed.
function steps.open(...) create(0, 0, ...) end
