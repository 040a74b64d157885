-- For tests: moves every moment of every row back by :seconds, as if so much time had passed; leases of workers stay.
select pgrun._advance(make_interval(secs => :'seconds'::float8));
