PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
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
INSERT INTO "candidates" VALUES('default','toy',1772532000123456789,'1f281a4e0796fb60a61ac8465ede08be33c78f17d117b218255cec97679d556a',2.5,'{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"Earl Grey, it''s said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[7,8],"alternate_text":null,"alternate_ids":null,"timestamp_ns":1772532000123456789,"noise":null}',1700000360.0);
INSERT INTO "candidates" VALUES('other','toy',-1,'35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b',2.5,'{"entry_idx":3,"node_id":"c3","divergence":2.5,"response_text":"said","prior_context":"[user]\nwhich tea?","context_ids":[1,2,5,9],"bare_context_ids":[5,9],"continuation_ids":[3],"alternate_text":null,"alternate_ids":null,"timestamp_ns":-1,"noise":null}',1700000420.0);
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
INSERT INTO "cells" VALUES('default','tea','toy','c1',1,2.5,2.5,1700000240.0);
INSERT INTO "cells" VALUES('default','tea','toy','c3',3,0.0,-0.75,1700000240.0);
INSERT INTO "cells" VALUES('other','tea','toy','c1',1,2.5,2.5,1700000300.0);
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
INSERT INTO "memories" VALUES('default','tea','toy',2.0,2.0,1700000060.0,1);
INSERT INTO "memories" VALUES('other','tea','toy',2.0,2.0,1700000120.0,1);
INSERT INTO "memories" VALUES('default','it''s
日本 é','smollm2',0.5,0.5,1700000180.0,1);
INSERT INTO "memories" VALUES('default','dog','toy',1.5,1.5,NULL,0);
CREATE TABLE "rows" (
            namespace VARCHAR NOT NULL,
            "key" VARCHAR NOT NULL,
            model VARCHAR NOT NULL,
            fingerprint VARCHAR NOT NULL,
            "row" VARCHAR NOT NULL,
            scored_at FLOAT NOT NULL,
            PRIMARY KEY (namespace, "key", model)
        );
INSERT INTO "rows" VALUES('default','tea','toy','f1','{"key":"tea","score":2.5,"mode":"full","divergences":[{"entry_idx":1,"node_id":"c1","divergence":2.5,"signed":2.5,"noise":0.1},{"entry_idx":3,"node_id":"c3","divergence":0.0,"signed":-0.75,"noise":null}],"hold":[{"entry_idx":1,"node_id":"c1","divergence":2.5,"signed":2.5,"noise":0.1}],"fingerprint":"f1"}',1700000240.0);
INSERT INTO "rows" VALUES('other','tea','toy','f2','{"key":"tea","score":2.5,"mode":"full","divergences":[{"entry_idx":1,"node_id":"c1","divergence":2.5,"signed":2.5,"noise":0.1}],"hold":null,"fingerprint":"f2"}',1700000300.0);
CREATE TABLE sends (
            namespace VARCHAR NOT NULL,
            timestamp_ns INTEGER NOT NULL,
            continuation_hash VARCHAR NOT NULL,
            idempotency_key VARCHAR NOT NULL,
            position INTEGER NOT NULL,
            sample VARCHAR NOT NULL,
            sent_at FLOAT NOT NULL,
            PRIMARY KEY (namespace, timestamp_ns, continuation_hash)
        );
INSERT INTO "sends" VALUES('default',77,'fd223b85f4dc20183fd595f90fc484d67a2242a9de5809cd3e844fa95954fc4a','key-1',0,'{"timestamp_ns":77,"context_ids":[1,2],"continuation_ids":[3,4]}',1700000720.0);
INSERT INTO "sends" VALUES('default',78,'f0a0278e4372459cca6159cd5e71cfee638302a7b9ca9b05c34181ac0a65ac5d','key-1',1,'{"timestamp_ns":78,"context_ids":[1],"continuation_ids":[4]}',1700000720.0);
INSERT INTO "sends" VALUES('other',77,'fd223b85f4dc20183fd595f90fc484d67a2242a9de5809cd3e844fa95954fc4a','key-2',0,'{"timestamp_ns":77,"context_ids":[1,2],"continuation_ids":[3,4]}',1700000780.0);
CREATE TABLE trained (
            namespace VARCHAR NOT NULL,
            timestamp_ns INTEGER NOT NULL,
            continuation_hash VARCHAR NOT NULL,
            job_id VARCHAR,
            trained_at FLOAT NOT NULL,
            PRIMARY KEY (namespace, timestamp_ns, continuation_hash)
        );
INSERT INTO "trained" VALUES('default',1772532000123456789,'1f281a4e0796fb60a61ac8465ede08be33c78f17d117b218255cec97679d556a','job-1',1700000480.0);
INSERT INTO "trained" VALUES('default',5,'',NULL,1700000540.0);
INSERT INTO "trained" VALUES('default',-9223372036854775808,'',NULL,1700000600.0);
INSERT INTO "trained" VALUES('other',5,'35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b','job-2',1700000660.0);
CREATE INDEX cells_by_age ON cells (namespace, scored_at);
CREATE INDEX rows_by_age ON "rows" (namespace, scored_at);
CREATE INDEX candidates_by_age ON candidates (namespace, found_at);
COMMIT;
PRAGMA user_version = 2;
