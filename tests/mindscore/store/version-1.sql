PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE memories (
	namespace VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	score FLOAT NOT NULL, 
	weight FLOAT NOT NULL, 
	last_scored FLOAT, 
	count INTEGER NOT NULL, 
	PRIMARY KEY (namespace, "key", model)
);
INSERT INTO memories VALUES('default','tea','toy',2.0,3.3999999999999999111,1700000060.0,2);
INSERT INTO memories VALUES('default',replace('it''s\n日本 é','\n',char(10)),'smollm2',0.5,0.5,1700000120.0,1);
INSERT INTO memories VALUES('other','tea','toy',9.0,9.0,1700000120.0,1);
INSERT INTO memories VALUES('default','dog','toy',1.5,1.5,NULL,0);
CREATE TABLE cells (
	namespace VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	node_id VARCHAR NOT NULL, 
	entry_idx INTEGER NOT NULL, 
	divergence FLOAT NOT NULL, 
	signed FLOAT NOT NULL, 
	scored_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, "key", model, node_id)
);
INSERT INTO cells VALUES('default','tea','toy','c1',1,2.5,2.5,1700000120.0);
INSERT INTO cells VALUES('default','tea','toy','c3',3,0.0,-0.75,1700000120.0);
INSERT INTO cells VALUES('other','tea','toy','c1',1,1.0,1.0,1700000120.0);
CREATE TABLE candidates (
	namespace VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	timestamp_ns INTEGER NOT NULL, 
	continuation_hash VARCHAR NOT NULL, 
	divergence FLOAT NOT NULL, 
	candidate VARCHAR NOT NULL, 
	found_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, model, timestamp_ns, continuation_hash)
);
INSERT INTO candidates VALUES('default','toy',1772532000123456789,'fd223b85f4dc20183fd595f90fc484d67a2242a9de5809cd3e844fa95954fc4a',2.5,'{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"Earl Grey, it''s said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[3,4],"alternate_text":"Coffee","alternate_ids":[7,8],"timestamp_ns":1772532000123456789,"noise":0.25}',1700000120.0);
INSERT INTO candidates VALUES('other','toy',-1,'35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b',2.5,'{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[3],"alternate_text":null,"alternate_ids":null,"timestamp_ns":-1,"noise":0.25}',1700000120.0);
CREATE TABLE trained (
	namespace VARCHAR NOT NULL, 
	timestamp_ns INTEGER NOT NULL, 
	continuation_hash VARCHAR NOT NULL, 
	job_id VARCHAR, 
	trained_at FLOAT NOT NULL, 
	PRIMARY KEY (namespace, timestamp_ns, continuation_hash)
);
INSERT INTO trained VALUES('default',1772532000123456789,'fd223b85f4dc20183fd595f90fc484d67a2242a9de5809cd3e844fa95954fc4a','job-1',1700000120.0);
INSERT INTO trained VALUES('default',5,'',NULL,1700000120.0);
INSERT INTO trained VALUES('default',-9223372036854775808,'',NULL,1700000120.0);
INSERT INTO trained VALUES('other',5,'0c730b69905c5ef7a4ca5269f72365400bde2dd2c04eaf9bbb3d1c4a265a0131','job-2',1700000120.0);
COMMIT;
PRAGMA user_version = 1;
